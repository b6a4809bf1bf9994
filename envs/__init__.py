"""What is to be learned: tasks that own their ground truth."""

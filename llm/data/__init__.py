"""What people wrote down: rows of files and datasets, as tokens."""

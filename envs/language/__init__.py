"""Language tasks whose true reward is a program: what may be said, who says it well, and who compares."""

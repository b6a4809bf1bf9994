"""The claims of the theory, measured in the exact world."""

"""Data in and out of the control world: demonstrations in the formats people use, comparisons of their segments."""

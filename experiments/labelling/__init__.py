"""A page on which people compare and demonstrate."""

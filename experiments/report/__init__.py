"""A page of comparisons: one HTML file that needs nothing else, and the same tables as Markdown."""

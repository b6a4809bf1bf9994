"""The front door: the command line, presets, benchmarks, comparisons and reports."""

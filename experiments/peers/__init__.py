"""Contenders of speed measurements: scripts that run in processes, and environments, of their own."""

"""Gymnasium tasks with continuous observations and actions: their ground truth, their people, their data."""

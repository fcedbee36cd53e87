"""Curves over thresholds and over probabilities."""

"""What is said of a run in a few lines: before it, and at its end."""

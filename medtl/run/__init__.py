"""One run: its folder, and the steps from recipe to report."""

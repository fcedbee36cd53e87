"""From a predictions table to `metrics.json`: which statistics a study gets. No torch."""

"""Tasks: the only place that knows what a number means."""

"""Studies about a finished model: on patients of another place, and beside human readers."""

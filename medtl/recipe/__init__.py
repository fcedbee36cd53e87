"""The recipe: what a run needs, as frozen, checked values."""

"""From whom and from what a run learns besides the labels of its training cases."""

"""From trained networks to tables of predictions and pictures of what they saw."""

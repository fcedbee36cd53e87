"""Speed as ratios against other ways to do the same, measured in one process, alternating."""

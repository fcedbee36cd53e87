"""A model where it was not made: what shifted, what mends it, how much sites differ."""

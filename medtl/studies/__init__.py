"""Studies: several runs of one recipe, compared honestly."""

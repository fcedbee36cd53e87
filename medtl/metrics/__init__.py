"""Clinical statistics. Arrays in, measures with intervals out; no torch, no files."""

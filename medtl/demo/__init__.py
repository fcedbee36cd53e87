"""Synthetic data, offline and free of any person: phantoms drawn from a seed."""

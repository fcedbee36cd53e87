"""Weights that others published: what is known of each, and how its names become the network's."""

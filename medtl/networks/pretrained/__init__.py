"""Weights that others published: what is known of each, and how their names become the network's."""

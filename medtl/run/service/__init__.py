"""A run in daily use: a page on this machine, and a watch over incoming studies."""

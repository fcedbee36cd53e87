"""A run out of the lab: its network as a graph that numpy and onnxruntime run, and how it does."""

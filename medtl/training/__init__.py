"""Staged training: decoded images, batches, optimiser, schedule, early stopping, checkpoints."""

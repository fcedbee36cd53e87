"""Decoded images as samples and batches that are functions of (seed, epoch, index)."""

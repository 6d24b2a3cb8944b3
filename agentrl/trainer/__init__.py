"""Trainer: the loop sample, credit, batch, update, sync."""

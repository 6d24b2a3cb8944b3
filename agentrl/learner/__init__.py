"""Learner: packed batches into new weights, with DeepSpeed."""

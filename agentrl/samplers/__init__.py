"""Samplers: which turn to play next, from which node, and when to stop."""

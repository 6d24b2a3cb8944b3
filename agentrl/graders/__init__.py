"""Graders: pure functions (answer, reference) to a score."""

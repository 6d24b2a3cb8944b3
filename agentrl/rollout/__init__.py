"""Rollout: one episode loop, the only door between chat text and tokens."""

"""Core: the contracts and the records that every other room speaks."""

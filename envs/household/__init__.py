"""A household in text, in the manner of ALFWorld."""

from .env import HouseholdEnv

__all__ = ["HouseholdEnv"]

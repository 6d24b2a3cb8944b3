"""Code environments: programs graded by tests, and a live Python session."""

from .functions import FunctionsEnv

__all__ = ["FunctionsEnv"]

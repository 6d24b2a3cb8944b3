"""Code environments: programs graded by tests, and a live Python session."""

from .functions import FunctionsEnv
from .session import SessionEnv

__all__ = ["FunctionsEnv", "SessionEnv"]

"""Code environments: programs graded by tests, a live Python session, and work in a shell."""

from .functions import FunctionsEnv
from .session import SessionEnv
from .shell import ShellEnv

__all__ = ["FunctionsEnv", "SessionEnv", "ShellEnv"]

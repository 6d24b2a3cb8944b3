"""MiniWoB++: small web tasks in a headless browser."""

from .env import MiniWobEnv

__all__ = ["MiniWobEnv"]

"""Customer service: an agent with a policy, tools over a database, and a user."""

from .env import ServiceEnv

__all__ = ["ServiceEnv"]

"""Questions to be answered with the tools of MCP servers."""

from .env import McpEnv

__all__ = ["McpEnv"]

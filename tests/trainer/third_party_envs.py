"""MCP tasks for a policy that knows no format yet: its text is the argument of a call."""

from __future__ import annotations

from agentrl.core.env import StepResult
from agentrl.envs.mcp import McpEnv


class EveryTextIsACall(McpEnv):
    """The first text of an episode is the place to convert a time for, the second the answer."""

    async def step(self, action: str) -> StepResult:
        """Wrap the text in the format."""
        text = self.call_format.neutral(action) or "nowhere"
        if self.turn:
            return await super().step(self.call_format.answer(text))
        arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": text}
        return await super().step(self.call_format.call("convert_time", arguments))

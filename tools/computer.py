"""A computer as tools: mouse, keyboard and what is on the screen then."""

from __future__ import annotations

from agentrl.core.computer import Computer, ComputerTools
from agentrl.core.tool import Tool


def computer_tools(computer: Computer, *, timeout: float = 60.0) -> tuple[Tool, ...]:
    """A tool for each action of OSWorld's vocabulary, such as `click(x, y)` or `typing(text)`.

    What a tool returns is what `computer` shows afterwards. They go into any `ToolEnv`, whose own
    answer then takes the place of `done` and `fail`. `timeout` is in seconds.
    """
    tools = ComputerTools(computer.perform).tools(timeout=timeout)
    return tuple(tool for tool in tools if tool.name not in ("done", "fail"))

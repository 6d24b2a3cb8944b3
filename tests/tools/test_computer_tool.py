"""The computer as tools of any environment."""

from __future__ import annotations

import pytest

from agentrl.core.computer import ACTION_TYPES, ComputerAction
from agentrl.core.errors import ContractError, ToolError
from agentrl.core.formats import JsonFormat, XmlFormat
from agentrl.tools.computer import computer_tools


class Pad:
    """A computer that only writes down what was done."""

    def __init__(self):
        self.done = []

    async def perform(self, action: ComputerAction) -> str:
        if action.parameters.get("x") == 999:
            raise ToolError("that is outside of the screen")
        self.done.append((action.type, dict(action.parameters)))
        return f"screen after {len(self.done)}"


async def test_every_action_but_the_endings_is_a_tool_that_performs_it():
    pad = Pad()
    tools = {tool.name: tool for tool in computer_tools(pad)}
    assert set(tools) == {name.lower() for name in ACTION_TYPES} - {"done", "fail"}
    assert await tools["click"].call({"x": 3, "y": 4}) == "screen after 1"
    assert await tools["hotkey"].call({"keys": ["ctrl", "s"]}) == "screen after 2"
    assert pad.done == [
        ("CLICK", {"x": 3, "y": 4, "button": "left", "num_clicks": 1}),
        ("HOTKEY", {"keys": ["ctrl", "s"]}),
    ]


async def test_what_the_computer_refuses_the_policy_reads():
    tools = {tool.name: tool for tool in computer_tools(Pad())}
    with pytest.raises(ToolError, match="outside of the screen"):
        await tools["move_to"].call({"x": 999, "y": 0})
    with pytest.raises(ToolError, match="x: input should be less than"):
        await tools["move_to"].call({"x": 10**9, "y": 0})


def test_the_tools_go_into_the_json_format_and_not_into_tags():
    written = JsonFormat(computer_tools(Pad())).parse(
        '<tool_call>{"name": "typing", "arguments": {"text": "hi"}}</tool_call>'
    )
    assert [(call.name, call.arguments) for call in written.calls] == [("typing", {"text": "hi"})]
    with pytest.raises(ContractError):
        XmlFormat(computer_tools(Pad()))

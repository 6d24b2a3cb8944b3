"""What a policy does at a computer, in OSWorld's words: one action type, and its tools.

The names and parameters are those of OSWorld's `computer_13` (arXiv:2404.07972), and `element`,
which stands for the middle of an element of the last accessibility tree.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import Field

from agentrl.core.errors import ToolError, nearest
from agentrl.core.tool import Tool, quoted

Button: TypeAlias = Literal["left", "middle", "right"]
Place: TypeAlias = Annotated[int, Field(ge=0, le=16_384)]
Element: TypeAlias = Annotated[int, Field(ge=0, le=100_000)]
Ticks: TypeAlias = Annotated[int, Field(ge=-50, le=50)]
Key: TypeAlias = Annotated[str, Field(min_length=1, max_length=24)]

ACTION_TYPES = (
    "MOVE_TO",
    "CLICK",
    "MOUSE_DOWN",
    "MOUSE_UP",
    "RIGHT_CLICK",
    "DOUBLE_CLICK",
    "DRAG_TO",
    "SCROLL",
    "TYPING",
    "PRESS",
    "KEY_DOWN",
    "KEY_UP",
    "HOTKEY",
    "WAIT",
    "DONE",
    "FAIL",
)
"""The vocabulary; a tool is named as its action, in small letters."""


@dataclass(frozen=True, slots=True)
class ComputerAction:
    """One action: its type (`ACTION_TYPES`) and the parameters that were given."""

    type: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Computer(Protocol):
    """Something with a screen, a mouse and a keyboard."""

    async def perform(self, action: ComputerAction) -> str:
        """Do `action`; returns what is to be seen then. `ToolError` where it cannot be done."""


class ComputerTools:
    """The actions as typed functions; each gives its `ComputerAction` to `perform`."""

    def __init__(self, perform: Callable[[ComputerAction], Awaitable[str]]) -> None:
        self._perform = perform

    def tools(self, *, timeout: float = 60.0) -> tuple[Tool, ...]:
        """A tool for each action; `timeout` is in seconds."""
        return tuple(
            Tool.of(getattr(self, name.lower()), timeout=timeout, max_result_chars=40_000)
            for name in ACTION_TYPES
        )

    async def _act(self, type: str, **parameters: object) -> str:
        given = {key: value for key, value in parameters.items() if value is not None}
        return await self._perform(ComputerAction(type, given))

    async def move_to(
        self, x: Place | None = None, y: Place | None = None, element: Element | None = None
    ) -> str:
        """Move the mouse to a point (x, y) or to an element."""
        return await self._act("MOVE_TO", x=x, y=y, element=element)

    async def click(
        self,
        x: Place | None = None,
        y: Place | None = None,
        element: Element | None = None,
        button: Button = "left",
        num_clicks: Annotated[int, Field(ge=1, le=3)] = 1,
    ) -> str:
        """Click at a point, at an element, or where the mouse is."""
        return await self._act(
            "CLICK", x=x, y=y, element=element, button=button, num_clicks=num_clicks
        )

    async def mouse_down(self, button: Button = "left") -> str:
        """Press a mouse button and hold it."""
        return await self._act("MOUSE_DOWN", button=button)

    async def mouse_up(self, button: Button = "left") -> str:
        """Release a mouse button."""
        return await self._act("MOUSE_UP", button=button)

    async def right_click(
        self, x: Place | None = None, y: Place | None = None, element: Element | None = None
    ) -> str:
        """Click with the right button."""
        return await self._act("RIGHT_CLICK", x=x, y=y, element=element)

    async def double_click(
        self, x: Place | None = None, y: Place | None = None, element: Element | None = None
    ) -> str:
        """Click twice with the left button."""
        return await self._act("DOUBLE_CLICK", x=x, y=y, element=element)

    async def drag_to(
        self, x: Place | None = None, y: Place | None = None, element: Element | None = None
    ) -> str:
        """Drag with the left button from where the mouse is to a point or an element."""
        return await self._act("DRAG_TO", x=x, y=y, element=element)

    async def scroll(self, dx: Ticks = 0, dy: Ticks = 0) -> str:
        """Turn the wheel by `dy` notches (up is positive) and `dx` (right is positive)."""
        return await self._act("SCROLL", dx=dx, dy=dy)

    async def typing(self, text: Annotated[str, Field(max_length=4000)]) -> str:
        """Type text; a line break presses Enter."""
        return await self._act("TYPING", text=text)

    async def press(self, key: Key) -> str:
        """Press a key and release it, such as enter, tab, esc, backspace, up, f2, a."""
        return await self._act("PRESS", key=key)

    async def key_down(self, key: Key) -> str:
        """Press a key and hold it."""
        return await self._act("KEY_DOWN", key=key)

    async def key_up(self, key: Key) -> str:
        """Release a key."""
        return await self._act("KEY_UP", key=key)

    async def hotkey(self, keys: Annotated[list[Key], Field(min_length=1, max_length=6)]) -> str:
        """Press several keys together, such as ["ctrl", "s"]."""
        return await self._act("HOTKEY", keys=keys)

    async def wait(self, seconds: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0) -> str:
        """Wait."""
        return await self._act("WAIT", seconds=seconds)

    async def done(self) -> str:
        """Say that the task is done; this ends it."""
        return await self._act("DONE")

    async def fail(self) -> str:
        """Say that the task cannot be done; this ends it."""
        return await self._act("FAIL")


async def _nothing(action: ComputerAction) -> str:
    return ""


@functools.cache
def _checks() -> Mapping[str, Tool]:
    return {tool.name: tool for tool in ComputerTools(_nothing).tools()}


def checked(type: str, parameters: Mapping[str, Any]) -> ComputerAction:
    """The action of these parameters, converted to their types.

    Raises:
        ToolError: an unknown action, or parameters that it does not take, in words for the policy.
    """
    if type not in ACTION_TYPES:
        known = ", ".join(ACTION_TYPES)
        raise ToolError(
            f"there is no action {quoted(type)}.{nearest(type, ACTION_TYPES)} Actions: {known}."
        )
    values = _checks()[type.lower()].validate(parameters)
    values = {key: value for key, value in values.items() if value is not None}
    point = {"x", "y"} & set(values)
    if len(point) == 1:
        raise ToolError(f"{type} needs both x and y.")
    if point and "element" in values:
        raise ToolError(f"{type} takes a point or an element, not both.")
    if type in ("MOVE_TO", "DRAG_TO") and not point and "element" not in values:
        raise ToolError(f"{type} needs x and y, or an element.")
    return ComputerAction(type, values)

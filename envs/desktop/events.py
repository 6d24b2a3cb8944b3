"""Actions as input events of the display."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentrl.core.computer import ComputerAction

_BUTTONS = {"left": 1, "middle": 2, "right": 3}
_UP, _DOWN, _LEFT, _RIGHT = 4, 5, 6, 7
DRAG_STEPS = 8


class Point(NamedTuple):
    """A place on the screen, in pixels."""

    x: int
    y: int


def events_of(action: ComputerAction, point: Point | None) -> list[list[Any]]:
    """The events of `action`; `point` is where it is done (its element's middle, or its x and y).

    `WAIT`, `DONE` and `FAIL` have none.
    """
    given = action.parameters
    if point is None and "x" in given:
        point = Point(given["x"], given["y"])
    # An application learns that the pointer came, and shows it, before it takes a press.
    move: list[list[Any]] = [["move", *point], ["pause"]] if point else []
    match action.type:
        case "MOVE_TO":
            return move[:1]
        case "CLICK":
            button = _BUTTONS[given.get("button", "left")]
            return move + _clicks(button, given.get("num_clicks", 1))
        case "RIGHT_CLICK":
            return move + _clicks(3, 1)
        case "DOUBLE_CLICK":
            return move + _clicks(1, 2)
        case "MOUSE_DOWN" | "MOUSE_UP":
            number = _BUTTONS[given.get("button", "left")]
            return [["button", number, action.type == "MOUSE_DOWN"]]
        case "DRAG_TO":
            assert point is not None
            # Most applications take a drag only from a pointer that moves in between.
            return [
                ["button", 1, True],
                ["sleep", 0.05],
                *(["glide", *point, n, DRAG_STEPS] for n in range(1, DRAG_STEPS + 1)),
                ["sleep", 0.05],
                ["button", 1, False],
            ]
        case "SCROLL":
            down = _UP if given.get("dy", 0) > 0 else _DOWN
            across = _RIGHT if given.get("dx", 0) > 0 else _LEFT
            return _clicks(down, abs(given.get("dy", 0))) + _clicks(across, abs(given.get("dx", 0)))
        case "TYPING":
            return [["type", given["text"]]]
        case "PRESS":
            return _keys([given["key"]])
        case "HOTKEY":
            return _keys(given["keys"])
        case "KEY_DOWN" | "KEY_UP":
            return [["key", given["key"], action.type == "KEY_DOWN"]]
        case _:
            return []


def _clicks(button: int, times: int) -> list[list[Any]]:
    return [["button", button, down] for _ in range(times) for down in (True, False)]


def _keys(keys: list[str]) -> list[list[Any]]:
    pressed = [["key", key, True] for key in keys]
    released = [["key", key, False] for key in reversed(keys)]
    # A window manager takes the keyboard at the first key, and must see the release of the last.
    return [*pressed, ["pause"], *released] if len(keys) > 1 else pressed + released

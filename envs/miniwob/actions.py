"""The actions of a policy on a page: calls written as text, read strictly and never executed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from agentrl.core.errors import nearest

MAX_TEXT = 500
"""Characters that one action may type."""

MAX_WAIT_MS = 10_000
"""Milliseconds of the page's time that one action may wait."""

MAX_SCROLL = 2000
"""Pixels that one action may scroll."""


@dataclass(frozen=True, slots=True)
class Ref:
    """An element, by the number in brackets that an observation gave it."""

    number: int


@dataclass(frozen=True, slots=True)
class Point:
    """Pixels from the left and from the top of the page's window."""

    x: float
    y: float


Place: TypeAlias = Ref | Point


@dataclass(frozen=True, slots=True)
class Click:
    """One or two presses of the left button."""

    place: Place
    count: int = 1


@dataclass(frozen=True, slots=True)
class Hover:
    """The pointer moved there and left."""

    place: Place


@dataclass(frozen=True, slots=True)
class Drag:
    """The left button pressed at one place and let go at another."""

    start: Place
    end: Place


@dataclass(frozen=True, slots=True)
class Type:
    """Keys, one for each character, at the end of a field or, without one, where the focus is."""

    text: str
    ref: Ref | None = None


@dataclass(frozen=True, slots=True)
class Press:
    """A key with those held during it, as in `Control+a`."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Select:
    """Options of a list, by their text; the others are no longer selected."""

    ref: Ref
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scroll:
    """The wheel turned over a place by so many pixels; positive is down."""

    place: Place
    pixels: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, for so many milliseconds of the page's time; None: those of a turn."""

    milliseconds: int | None = None


Action: TypeAlias = Click | Hover | Drag | Type | Press | Select | Scroll | Wait


class MalformedError(ValueError):
    """An action that is none; the message is told to the policy."""


KEYS: Final = (
    *("Enter", "Tab", "Escape", "Backspace", "Delete", "Space"),
    *("ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"),
)
"""Keys with a name; every printable character is a key, too."""

CONTROL_KEYS: Final = frozenset(
    (
        *("a", "b", "c", "i", "v", "x", "y", "z", "Backspace", "Delete", "Enter"),
        *("ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End"),
    )
)
"""What may be pressed with Control: the rest are commands to a browser, not to a page."""

FORMS: Final = {
    "click": "click(3)",
    "click_xy": "click_xy(80, 120)",
    "double_click": "double_click(3)",
    "hover": "hover(3)",
    "drag": "drag(3, 5), where each may be a place as in drag(3, (80, 120))",
    "type": 'type(3, "text")',
    "press": 'press("Enter")',
    "select": 'select(3, "option")',
    "scroll": "scroll(3, 100)",
    "wait": "wait() or wait(2000)",
}
"""The name of each action -> how it is written."""

INSTRUCTIONS: Final = """\
You operate a small web page with mouse and keyboard. Write one action in each turn, and nothing \
after it; you may think inside <think> and </think> before it. The actions:
click(3) - click the element [3]; double_click(3) and hover(3) work alike
click_xy(80, 120) - click 80 pixels from the left and 120 from the top
drag(3, 5) - drag [3] onto [5]; each may be a place: drag(3, (80, 120))
type(3, "text") - click the field [3] and type at its end; type("text") types where the focus is
press("Enter") - press a key; combinations as in press("Control+a")
select(3, "option") - choose from the list [3]; several: select(3, "one", "two")
scroll(3, 100) - turn the wheel over [3] by 100 pixels down; negative is up
wait() - let time pass; wait(2000) lets 2 seconds pass"""
"""What a policy is told about the form of its actions."""

_THOUGHT = re.compile(r"\A\s*(?:<think>)?(?:(?!<think>).)*?</think>", re.DOTALL)
_CALL = re.compile(r"([a-z_]{1,20})\s*\((.*)\)", re.DOTALL)
_ARGUMENT = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\\n]|\\.)*")
      | \(\s*(?P<x>-?\d{1,5}(?:\.\d{1,6})?)\s*,\s*(?P<y>-?\d{1,5}(?:\.\d{1,6})?)\s*\)
      | (?P<number>-?\d{1,6}(?:\.\d{1,6})?)
    )\s*""",
    re.VERBOSE,
)
_LONGEST = 8 * MAX_TEXT

_Value: TypeAlias = str | float | Point


def parse(text: str) -> Action:
    """The action that `text` asks for, a thought before it left aside.

    Raises:
        MalformedError: anything else than one well-formed call.
    """
    call = _THOUGHT.sub("", text).strip()
    if len(call) > _LONGEST:
        raise MalformedError(f"the action has {len(call)} characters; {_LONGEST} are allowed.")
    match = _CALL.fullmatch(call)
    if match is None:
        raise MalformedError("no action: write one call, as in click(3), and nothing else.")
    name, inner = match[1], match[2]
    if name not in FORMS:
        raise MalformedError(
            f"there is no action {name!r}.{nearest(name, FORMS)} Actions: {', '.join(FORMS)}."
        )
    try:
        return _action(name, _arguments(inner))
    except _ShapeError:
        raise MalformedError(f"{name} is written {FORMS[name]}.") from None


class _ShapeError(Exception):
    """Arguments that do not fit their action."""


def _arguments(inner: str) -> list[_Value]:
    values: list[_Value] = []
    at = 0
    while inner[at:].strip():
        if values:
            if inner[at : at + 1] != ",":
                raise _ShapeError
            at += 1
        match = _ARGUMENT.match(inner, at)
        if match is None:
            raise _ShapeError
        at = match.end()
        if match["string"] is not None:
            values.append(_string(match["string"]))
        elif match["number"] is not None:
            values.append(float(match["number"]))
        else:
            values.append(Point(float(match["x"]), float(match["y"])))
    return values


def _string(quoted: str) -> str:
    try:
        text = json.loads(quoted)
    except json.JSONDecodeError as error:
        raise MalformedError(
            f'a text stands in double quotes, with \\" and \\\\ inside it: {error.msg}.'
        ) from None
    if not text.isprintable() and not text.replace("\n", "").replace("\t", "").isprintable():
        raise MalformedError("a text holds printable characters and line breaks only.")
    if len(text) > MAX_TEXT:
        raise MalformedError(f"a text has at most {MAX_TEXT} characters, this has {len(text)}.")
    return str(text)


def _action(name: str, values: list[_Value]) -> Action:
    match name, values:
        case "click", [place]:
            return Click(_ref(place))
        case "double_click", [place]:
            return Click(_place(place), count=2)
        case "click_xy", [float() as x, float() as y]:
            return Click(Point(x, y))
        case "hover", [place]:
            return Hover(_place(place))
        case "drag", [start, end]:
            return Drag(_place(start), _place(end))
        case "type", [str() as text]:
            return Type(text)
        case "type", [ref, str() as text]:
            return Type(text, _ref(ref))
        case "press", [str() as keys]:
            return Press(_keys(keys))
        case "select", [ref, *options] if options:
            return Select(_ref(ref), tuple(map(_text, options)))
        case "scroll", [place, float() as pixels]:
            return Scroll(_place(place), _whole(pixels, -MAX_SCROLL, MAX_SCROLL, "scroll"))
        case "wait", []:
            return Wait()
        case "wait", [float() as milliseconds]:
            return Wait(_whole(milliseconds, 1, MAX_WAIT_MS, "wait"))
    raise _ShapeError


def _ref(value: _Value) -> Ref:
    if not isinstance(value, float) or not value.is_integer() or value < 1:
        raise _ShapeError
    return Ref(int(value))


def _place(value: _Value) -> Place:
    return value if isinstance(value, Point) else _ref(value)


def _text(value: _Value) -> str:
    if not isinstance(value, str):
        raise _ShapeError
    return value


def _whole(value: float, low: int, high: int, name: str) -> int:
    if not value.is_integer() or not low <= value <= high:
        raise MalformedError(f"{name} takes a whole number from {low} to {high}, got {value:g}.")
    return int(value)


def _keys(combination: str) -> tuple[str, ...]:
    if combination == "+":
        return ("+",)
    *held, key = combination.split("+")
    if key not in KEYS and not (len(key) == 1 and key.isprintable() and key != " "):
        raise MalformedError(
            f"there is no key {key!r}.{nearest(key, KEYS)} Keys: {', '.join(KEYS)}, and characters."
        )
    if len(set(held)) < len(held) or not set(held) <= {"Control", "Shift"}:
        raise MalformedError("only Control and Shift can be held, as in Control+a or Shift+Tab.")
    if "Control" in held and key not in CONTROL_KEYS:
        raise MalformedError(f"Control+{key} is a command to a browser, not to the page.")
    return (*held, key)

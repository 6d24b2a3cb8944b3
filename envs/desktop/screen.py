"""What is on a screen, as text: the windows, and the elements of the accessibility tree."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentrl.core.formats import JsonFormat

MAX_TEXT = 1500
"""Characters of an element's text that are shown."""

_TOLD = ("focused", "selected", "checked", "pressed", "expanded", "editable")
_NEVER = {"scroll bar", "redundant object", "tearoff menu item"}
_ELEMENT = re.compile(
    r'^ *\[(\d+)\] (?:(?P<role>[a-z0-9 ]+?))(?: (?P<name>"(?:[^"\\]|\\.)*"))? \((\d+), (\d+)\)',
    re.MULTILINE,
)
_NEUTRAL = JsonFormat(())
# How GTK writes a file's time of today (left-to-right mark, ratio sign): it never repeats.
_CLOCK = re.compile("\\d\\d\u200e?\u2236\\d\\d")
# What Chromium adds to a tab's name a while after it was opened.
_MEMORY = re.compile(r" - Memory usage - [\d.,]+ [KMG]B$")


class Element(NamedTuple):
    """An element of the tree as it is told; `x` and `y` are its middle on the screen, in pixels."""

    number: int
    depth: int
    role: str
    name: str
    text: str
    value: float | None
    states: tuple[str, ...]
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Screen:
    """A reading of a desktop: windows, elements and a picture, each where it was asked for."""

    windows: tuple[Mapping[str, Any], ...] = ()
    elements: tuple[Element, ...] = ()
    whole: bool = True
    png: bytes = b""

    def text(self, *, windows: bool, elements: bool) -> str:
        """The windows a line each, then the elements; without what could be read as a tag."""
        lines: list[str] = []
        if windows:
            lines += ["Windows:", *(map(_window, self.windows) if self.windows else ["(none)"])]
        if elements:
            lines += ["Elements:", *(map(_element, self.elements) if self.elements else ["(none)"])]
            lines += [] if self.whole else ["(more elements are not shown)"]
        return _NEUTRAL.neutral("\n".join(lines))


def elements_of(nodes: Sequence[Mapping[str, Any]], *, width: int, height: int) -> list[Element]:
    """The elements that a reader needs, numbered; containers without a name are left out.

    `nodes` are those of `inside/tree.py`, in depth-first order.
    """
    told: list[Element] = []
    above: list[tuple[int, int, str]] = []
    for node in nodes:
        while above and above[-1][0] >= node["depth"]:
            above.pop()
        depth, said = (above[-1][1], above[-1][2]) if above else (0, "")
        element = _told(node, len(told), depth, said, width, height)
        if element is None:
            above.append((node["depth"], depth, said))
            continue
        told.append(element)
        above.append((node["depth"], depth + 1, element.name or element.text))
    return told


def _told(
    node: Mapping[str, Any], number: int, depth: int, said: str, width: int, height: int
) -> Element | None:
    x = node["x"] + node["width"] // 2
    y = node["y"] + node["height"] // 2
    if node["width"] <= 0 or node["height"] <= 0 or not (0 <= x < width and 0 <= y < height):
        return None
    name = _MEMORY.sub("", _CLOCK.sub("now", " ".join(str(node["name"]).split())))
    text = _CLOCK.sub("now", str(node["text"]).rstrip())
    text = "" if text.strip() in (name, "\ufffc") else text
    states = tuple(state for state in _TOLD if state in node["states"])
    able = "sensitive" in node["states"]
    bare = not (name or text or node["value"] is not None)
    wanted = (
        "focused" in states or "editable" in states or node["role"] in ("combo box", "terminal")
    )
    if node["role"] in _NEVER or (bare and not wanted):
        return None
    if node["role"] in ("static", "label", "paragraph", "section") and (name or text) == said:
        return None
    states = states if able else (*states, "disabled")
    value = node["value"]
    return Element(number, depth, str(node["role"]), name, text, value, states, x, y)


def _window(window: Mapping[str, Any]) -> str:
    active = " active" if window["active"] else ""
    return (
        f"{json.dumps(window['title'], ensure_ascii=False)} at ({window['x']}, {window['y']}) "
        f"size {window['width']}x{window['height']}{active}"
    )


def _element(one: Element) -> str:
    name = f" {json.dumps(one.name, ensure_ascii=False)}" if one.name else ""
    line = f"{'  ' * one.depth}[{one.number}] {one.role}{name} ({one.x}, {one.y})"
    line += "".join(f" {state}" for state in one.states)
    line += f" value={one.value:g}" if one.value is not None else ""
    if not one.text:
        return line
    cut = len(one.text) - MAX_TEXT
    if cut <= 0:
        shown = one.text
    elif one.role == "terminal":
        shown = f"[{cut} characters] " + one.text[cut:]
    else:
        shown = one.text[:MAX_TEXT] + f" [{cut} characters]"
    return f"{line}: {json.dumps(shown, ensure_ascii=False)}"


class Found(NamedTuple):
    """An element as read from the text of an observation."""

    number: int
    x: int
    y: int


def find_element(text: str, role: str, name: str) -> Found | None:
    """The first element of a role and name in the text of an observation."""
    for match in _ELEMENT.finditer(text):
        said = json.loads(match["name"]) if match["name"] else ""
        if match["role"] == role and said == name:
            return Found(int(match[1]), int(match[4]), int(match[5]))
    return None

"""A page as text: one line for each element, written for a policy and read back by the experts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Position: TypeAlias = Literal["center", "box", "none"]

TASK = "Task: "
PAGE = "Page:"
"""What stands before the task in words and before the lines of a page."""

MAX_TEXT: Final = 2000
"""Characters of a text or value that are shown."""

_LINE = re.compile(
    r"(?P<indent> *)\[(?P<ref>\d+)\] (?P<tag>[\w-]+)(?:\#(?P<id>[^\s.\"]+))?"
    r"(?P<classes>(?:\.[^\s.\"]+)*)(?P<rest>(?: .*)?)"
)
_TEXT_LINE = re.compile(r"(?P<indent> *)(?P<text>\"(?:[^\"\\]|\\.)*\")")
_PART = re.compile(
    r" (?:(?P<text>\"(?:[^\"\\]|\\.)*\")|(?P<key>[\w-]+)="
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|\[(?:\"(?:[^\"\\]|\\.)*\"(?:, )?)*\])"
    r"|\((?P<box>-?\d+(?:, -?\d+)+)\)|(?P<flag>[a-z]+))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An element as a line shows it; `ref` 0 is a piece of text among elements."""

    ref: int
    tag: str
    depth: int
    text: str = ""
    id: str = ""
    classes: tuple[str, ...] = ()
    value: str = ""
    options: tuple[str, ...] = ()
    looks: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    x: int = 0
    y: int = 0


def page_text(nodes: Sequence[Mapping[str, Any]], position: Position) -> str:
    """The lines of a page, from the nodes that `page.js` gives."""
    lines = [_line(node, position) for node in nodes]
    return "\n".join([PAGE, *lines]) if lines else f"{PAGE} (nothing)"


def quoted(text: str) -> str:
    """`text` as JSON in which no tag and no control token of a model can be read."""
    shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "\u2026"
    return json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")


def _line(node: Mapping[str, Any], position: Position) -> str:
    indent = " " * int(node["depth"])
    if not node["tag"]:
        return indent + quoted(node["text"])
    name = node["tag"] + (f"#{node['id']}" if node["id"] else "")
    parts = [f"{indent}[{node['ref']}] {''.join((name, *('.' + c for c in node['classes'])))}"]
    if node["text"]:
        parts.append(quoted(node["text"]))
    if "value" in node:
        parts.append(f"value={quoted(node['value'])}")
    if "options" in node:
        parts.append(f"options=[{', '.join(map(quoted, node['options']))}]")
    parts += [f"{key}={quoted(value)}" for key, value in node["looks"].items()]
    parts += node["flags"]
    left, top, width, height = node["box"]
    if position == "center":
        parts.append(f"({left + width // 2}, {top + height // 2})")
    elif position == "box":
        parts.append(f"({left}, {top}, {width}, {height})")
    return " ".join(parts)


def task_of(seen: Sequence[str]) -> str:
    """The task in words, from the first observation."""
    _, found, rest = seen[0].partition(f"\n{TASK}")
    return rest.partition("\n")[0] if found else ""


def pages_of(seen: Sequence[str]) -> list[list[Node]]:
    """The pages that were shown, in order; an observation without one shows none."""
    return [list(_nodes(text)) for text in seen if PAGE in text]


def _nodes(text: str) -> Iterator[Node]:
    for line in text[text.rindex(PAGE) :].split("\n")[1:]:
        if match := _LINE.fullmatch(line):
            yield _node(match)
        elif match := _TEXT_LINE.match(line):
            depth = len(match["indent"])
            yield Node(ref=0, tag="", depth=depth, text=json.loads(match["text"]))


def _node(match: re.Match[str]) -> Node:
    text, value, flags, looks = "", "", [], {}
    options: tuple[str, ...] = ()
    box = [0, 0]
    for part in _PART.finditer(match["rest"]):
        if part["text"] is not None:
            text = json.loads(part["text"])
        elif part["key"] == "options":
            options = tuple(json.loads(part["value"]))
        elif part["key"] == "value":
            value = json.loads(part["value"])
        elif part["key"] is not None:
            looks[part["key"]] = json.loads(part["value"])
        elif part["box"] is not None:
            box = [int(one) for one in part["box"].split(",")]
        else:
            flags.append(part["flag"])
    if len(box) == 4:
        box = [box[0] + box[2] // 2, box[1] + box[3] // 2]
    return Node(
        ref=int(match["ref"]),
        tag=match["tag"],
        depth=len(match["indent"]),
        text=text,
        id=match["id"] or "",
        classes=tuple(match["classes"].split(".")[1:]),
        value=value,
        options=options,
        looks=looks,
        flags=tuple(flags),
        x=box[0],
        y=box[1],
    )

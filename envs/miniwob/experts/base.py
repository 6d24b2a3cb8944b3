"""What an expert sees of an episode, and the actions it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..view import Node


class LostError(LookupError):
    """The page does not look as the expert knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The task in words, every page that was shown so far and the actions' count."""

    task: str
    pages: Sequence[Sequence[Node]]
    turn: int

    @property
    def nodes(self) -> Sequence[Node]:
        """The lines of the page as it is now."""
        return self.pages[-1]

    def all(self, *, tag: str = "", cls: str = "", text: str | None = None) -> list[Node]:
        """Elements of that tag, with that class and exactly that text."""
        return [
            node
            for node in self.nodes
            if node.ref
            and (not tag or node.tag == tag)
            and (not cls or cls in node.classes)
            and (text is None or node.text == text)
        ]

    def one(self, *, tag: str = "", cls: str = "", text: str | None = None) -> Node:
        """The first of them."""
        return first(self.all(tag=tag, cls=cls, text=text), f"{tag}.{cls} {text!r}")

    def by_id(self, id: str) -> Node:
        """The element with that id."""
        return first((node for node in self.nodes if node.id == id), f"#{id}")

    def has(self, id: str) -> bool:
        """Whether an element with that id is shown."""
        return any(node.id == id for node in self.nodes)

    def inside(self, outer: Node) -> list[Node]:
        """What stands inside of `outer`, in order."""
        start = next(n for n, node in enumerate(self.nodes) if node is outer) + 1
        found: list[Node] = []
        for node in self.nodes[start:]:
            if node.depth <= outer.depth:
                break
            found.append(node)
        return found

    def around(self, inner: Node) -> Node:
        """The element right around `inner`."""
        place = next(n for n, node in enumerate(self.nodes) if node is inner)
        before = reversed(self.nodes[:place])
        return first((node for node in before if node.depth < inner.depth), "an outer element")

    def label(self, node: Node) -> str:
        """The text that stands beside `node` in the same element."""
        return " ".join(one.text for one in self.inside(self.around(node)) if one.text)


Expert: TypeAlias = Callable[[View], str]


def first(nodes: Iterable[Node], what: str) -> Node:
    """The first of `nodes`.

    Raises:
        LostError: there is none.
    """
    for node in nodes:
        return node
    raise LostError(f"no {what} on the page")


def click(node: Node) -> str:
    """A click on `node`."""
    return f"click({node.ref})"


def click_xy(x: float, y: float) -> str:
    """A click on a place."""
    return f"click_xy({round(x, 2):g}, {round(y, 2):g})"


def type_into(node: Node, text: str) -> str:
    """Typing at the end of `node`."""
    return f"type({node.ref}, {json.dumps(text, ensure_ascii=False)})"


def select(node: Node, *options: str) -> str:
    """A choice from `node`."""
    texts = ", ".join(json.dumps(one, ensure_ascii=False) for one in options)
    return f"select({node.ref}, {texts})"


def press(keys: str) -> str:
    """A key."""
    return f'press("{keys}")'


def drag(start: Node, end: Node | tuple[float, float]) -> str:
    """A drag from one element to another, or to a place."""
    to = str(end.ref) if isinstance(end, Node) else f"({end[0]:g}, {end[1]:g})"
    return f"drag({start.ref}, {to})"


def filled(fields: Sequence[tuple[Node, str]], then: Node) -> str:
    """Typing into the first of `fields` that does not hold its text, or a click on `then`."""
    for node, text in fields:
        if node.value != text:
            return type_into(node, text)
    return click(then)


def ordinal(text: str) -> int:
    """3 for `3rd`."""
    return int("".join(one for one in text if one.isdigit()))

"""The household's commands: ALFWorld's grammar, read and written."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

Verb: TypeAlias = Literal[
    "go",
    "open",
    "close",
    "take",
    "put",
    "clean",
    "heat",
    "cool",
    "use",
    "examine",
    "look",
    "inventory",
    "think",
]

_NAME = r"[a-z]+ [1-9][0-9]{0,2}"
_FORMS: tuple[tuple[Verb, str], ...] = (
    ("go", rf"go to (?P<place>{_NAME})"),
    ("open", rf"open (?P<place>{_NAME})"),
    ("close", rf"close (?P<place>{_NAME})"),
    ("take", rf"take (?P<thing>{_NAME}) from (?P<place>{_NAME})"),
    ("put", rf"put (?P<thing>{_NAME}) (?:in/on|in|on) (?P<place>{_NAME})"),
    ("put", rf"move (?P<thing>{_NAME}) to (?P<place>{_NAME})"),
    ("clean", rf"clean (?P<thing>{_NAME}) with (?P<place>{_NAME})"),
    ("heat", rf"heat (?P<thing>{_NAME}) with (?P<place>{_NAME})"),
    ("cool", rf"cool (?P<thing>{_NAME}) with (?P<place>{_NAME})"),
    ("use", rf"use (?P<thing>{_NAME})"),
    ("examine", rf"examine (?P<thing>{_NAME})"),
    ("look", "look"),
    ("inventory", "inventory"),
)
_PATTERNS = tuple((verb, re.compile(form)) for verb, form in _FORMS)
_THINK = re.compile(r"think\b")


class Command(NamedTuple):
    """A command: what to do, with which object, at which receptacle; "" where it has none.

    `examine` has its object or receptacle in `thing`.
    """

    verb: Verb
    thing: str = ""
    place: str = ""

    def __str__(self) -> str:
        return _WRITTEN[self.verb].format(thing=self.thing, place=self.place)


_WRITTEN: dict[Verb, str] = {
    "go": "go to {place}",
    "open": "open {place}",
    "close": "close {place}",
    "take": "take {thing} from {place}",
    "put": "put {thing} in/on {place}",
    "clean": "clean {thing} with {place}",
    "heat": "heat {thing} with {place}",
    "cool": "cool {thing} with {place}",
    "use": "use {thing}",
    "examine": "examine {thing}",
    "look": "look",
    "inventory": "inventory",
    "think": "think:",
}


def read_command(text: str) -> Command | None:
    """The command that `text` spells, whatever its case and spaces; None if it spells none.

    `think: ...` is a thought that changes nothing, as ReAct (arXiv:2210.03629) has it. Besides
    `put a in/on b` the newer `move a to b` is understood.
    """
    words = " ".join(text.lower().split())
    if _THINK.match(words):
        return Command("think")
    for verb, pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match:
            found = match.groupdict()
            return Command(verb, found.get("thing", ""), found.get("place", ""))
    return None

"""A small made-up world to search without any file or network: towns, their people and bridges.

Everything is drawn from a fixed seed, so that no policy knows it beforehand. Evaluation asks about
towns that no training question is about.
"""

from __future__ import annotations

import html
import random
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from agentrl.core.errors import ToolError

from .records import Passage, Question

HOST = "http://sample.invalid"
"""Where the pages of the world stand; the name can never be one of the real web."""

_TOWNS = 24
_TRAINED = 16
_SYLLABLES = ("bel", "cor", "dun", "esk", "fen", "gar", "hol", "kir", "lan", "mor", "nar", "ost")
_ENDS = ("by", "dale", "ford", "ham", "mouth", "stead", "ton", "wick")
_FIRST = ("Ada", "Bruno", "Clara", "Dag", "Elin", "Finn", "Greta", "Hugo", "Ines", "Jonas")
_LAST = ("Aske", "Brandt", "Corin", "Dahl", "Ekeby", "Falk", "Grieve", "Holt", "Ivers", "Jarl")
_TRADES = ("glass", "rope", "salt", "silk", "slate", "tiles", "wool", "paper")


class Town(NamedTuple):
    """What is known of a town."""

    name: str
    mayor: str
    bridge: str
    architect: str
    built: int
    trade: str


@cache
def towns() -> tuple[Town, ...]:
    """All towns, names and people all different."""
    rng = random.Random("agentrl sample world")
    names = [
        (a + b + end).capitalize()
        for a in _SYLLABLES
        for b in _SYLLABLES
        for end in _ENDS
        if a != b
    ]
    people = [f"{first} {last}" for first in _FIRST for last in _LAST]
    rng.shuffle(names)
    rng.shuffle(people)
    return tuple(
        Town(
            name=names[n],
            mayor=people[2 * n],
            bridge=f"{names[_TOWNS + n]} Bridge",
            architect=people[2 * n + 1],
            built=rng.randrange(1700, 1900),
            trade=rng.choice(_TRADES),
        )
        for n in range(_TOWNS)
    )


def passages() -> list[Passage]:
    """Two for each town: one of the town, one of its bridge."""
    found = []
    for town in towns():
        about = (
            f"{town.name} is a town that lives on {town.trade}. Its mayor is {town.mayor}. "
            f"The {town.bridge} leads into it."
        )
        bridge = f"The {town.bridge} was built in {town.built} by {town.architect}."
        found.append(Passage(_slug(town.name), town.name, about))
        found.append(Passage(_slug(town.bridge), town.bridge, bridge))
    return found


def questions(split: str) -> list[Question]:
    """For each town of the split one of a single hop and two of two hops; none for others."""
    if split not in ("train", "eval"):
        return []
    chosen = towns()[:_TRAINED] if split == "train" else towns()[_TRAINED:]
    return [question for town in chosen for question in _questions(town)]


def _questions(town: Town) -> Iterator[Question]:
    here, bridge = _slug(town.name), _slug(town.bridge)
    both = (town.name, town.bridge)
    text = f"Who is the mayor of {town.name}?"
    yield Question(f"{here}-mayor", text, (town.mayor,), 1, (here,), both[:1])
    text = f"Who built the bridge that leads into {town.name}?"
    yield Question(f"{here}-architect", text, (town.architect,), 2, (here, bridge), both)
    text = f"In which year was the bridge that leads into {town.name} built?"
    yield Question(f"{here}-year", text, (str(town.built),), 2, (here, bridge), both)


def url_of(id_: str) -> str:
    """Where the passage with this id stands as a page."""
    return f"{HOST}/{id_}"


def page(url: str) -> str:
    """The HTML of `url`, other towns and bridges as links; `ToolError` where there is none."""
    pages = _pages()
    if url not in pages:
        raise ToolError(f"{url} answered 404 Not Found.")
    return pages[url]


@cache
def _pages() -> dict[str, str]:
    titles = {passage.title: passage.id for passage in passages()}
    found = {}
    for one in passages():
        text = html.escape(one.text)
        for title, id_ in titles.items():
            if title != one.title:
                text = text.replace(title, f'<a href="/{id_}">{title}</a>')
        found[url_of(one.id)] = (
            f"<html><head><title>{html.escape(one.title)}</title></head>"
            f"<body><article><h1>{html.escape(one.title)}</h1><p>{text}</p></article></body></html>"
        )
    return found


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")

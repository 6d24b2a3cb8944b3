"""A shop with its goals and its search, loaded once in a process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Self

from ..games.base import chosen_split
from ..search.index import Bm25Index
from ..search.records import Passage
from .catalogue import goals_of, made_products
from .files import matched_goals, read_goals, read_instructions, read_products
from .records import Goal, Product, by_asin

RESULTS = 50
"""Products that a search finds at most."""

_lock = threading.RLock()


class Sources(NamedTuple):
    """Where a shop comes from: the number of made products, or files ("": none)."""

    size: int
    products: str = ""
    attributes: str = ""
    instructions: str = ""
    goals: str = ""


@dataclass(frozen=True)
class Shop:
    """Products by id in the catalogue's order, and the goals of each split."""

    products: Mapping[str, Product]
    goals: Mapping[str, Sequence[Goal]]

    @cached_property
    def index(self) -> Bm25Index:
        """BM25 over titles, descriptions, first features and options."""
        return Bm25Index.build(
            Passage(one.asin, one.title.lower(), one.contents) for one in self.products.values()
        )

    def ready(self) -> Self:
        """Itself, once its index is built and was used."""
        with _lock:
            self.search("a")
        return self

    def search(self, query: str) -> tuple[str, ...]:
        """Ids of the best products for `query`, best first; equal ones in catalogue order."""
        (hits,) = self.index.search([query.lower()], RESULTS)
        return tuple(hit.id for hit in hits)


def open_shop(sources: Sources) -> Shop:
    """The shop of `sources`, read anew where a file was written anew.

    Raises:
        DataError: a file is missing or malformed.
    """
    stamps = []
    for path in sources[1:]:
        status = Path(path).stat() if path and Path(path).is_file() else None
        stamps.append((status.st_size, status.st_mtime_ns) if status else (0, 0))
    # One thread opens a shop, the others wait for it.
    with _lock:
        return _opened(sources, tuple(stamps))


@lru_cache(maxsize=8)
def _opened(sources: Sources, stamps: tuple[tuple[int, int], ...]) -> Shop:
    # The stamps make a changed file another argument.
    if not sources.products:
        made = made_products(sources.size)
        return Shop(by_asin(made), goals_of(made))
    products = read_products(sources.products, sources.attributes)
    known = read_instructions(sources.instructions, products) if sources.instructions else []
    if sources.goals:
        known = matched_goals(read_goals(sources.goals), products, known)
    if known:
        split: dict[str, list[Goal]] = {"train": [], "eval": []}
        for goal in known:
            split[chosen_split(goal.asin)].append(goal)
        return Shop(by_asin(products), split)
    return Shop(by_asin(products), goals_of(products))

"""The records of the search environments: passages and questions."""

from __future__ import annotations

from typing import NamedTuple


class Passage(NamedTuple):
    """One text that a search can find."""

    id: str
    title: str
    text: str


class Question(NamedTuple):
    """A question and its accepted answers, the first of them gold.

    `hops` is 0 where unknown. `support` holds the ids of the passages that must be found, in
    order, and `queries` a search that finds each; both are empty where unknown.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    hops: int
    support: tuple[str, ...]
    queries: tuple[str, ...]

"""What a search tool searches with, and how its finds are told to the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

ResultStyle: TypeAlias = Literal["documents", "plain"]

NOTHING_FOUND = "nothing found"
"""What the policy reads where no passage fits its query."""


class Hit(NamedTuple):
    """A passage that a search found, with its score (higher is better)."""

    id: str
    title: str
    text: str
    score: float


class Retriever(Protocol):
    """Finds passages; one serves any number of episodes at once."""

    async def start(self) -> None:
        """Load what it needs, which may take long; `search` does so itself if this was left out."""
        ...

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        """The up to `k` best passages, best first.

        Raises:
            EnvError: the search itself failed; finding nothing is no failure.
        """
        ...


def told(hits: Sequence[Hit], *, style: ResultStyle) -> str:
    """The text of a search's result.

    `"documents"` numbers the passages as Search-R1 does (arXiv:2503.09516), one a line:
    `Doc 1(Title: "T") text`; `"plain"` gives their texts alone.
    """
    if not hits:
        return NOTHING_FOUND
    if style == "plain":
        return "\n".join(hit.text for hit in hits)
    return "\n".join(
        f'Doc {number}(Title: "{hit.title}") {hit.text}' for number, hit in enumerate(hits, start=1)
    )

"""What a search tool searches with, and how its finds are told to the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

ResultStyle: TypeAlias = Literal["documents", "plain"]

NOTHING_FOUND = "nothing found"
"""What the policy reads where no passage fits its query."""

_CUT = " ..."


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


def told(hits: Sequence[Hit], *, style: ResultStyle, max_chars: int) -> str:
    """The text of a search's result, of at most `max_chars` characters as far as titles allow.

    `"documents"` numbers the passages as Search-R1 does (arXiv:2503.09516), one a line:
    `Doc 1(Title: "T") text`; `"plain"` gives their texts alone. Where they are too long, the
    longest texts lose their ends, so that every passage is shown.
    """
    if not hits:
        return NOTHING_FOUND
    heads = [
        f'Doc {number}(Title: "{hit.title}") ' if style == "documents" else ""
        for number, hit in enumerate(hits, start=1)
    ]
    room = max_chars - sum(map(len, heads)) - (len(hits) - 1)
    limit = _longest([len(hit.text) for hit in hits], room)
    return "\n".join(
        head + _shortened(hit.text, limit) for head, hit in zip(heads, hits, strict=True)
    )


def _longest(lengths: Sequence[int], room: int) -> int:
    """The largest limit under which texts of these lengths, each cut to it, fit into `room`."""
    for taken, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - taken)
        if length > share:
            return max(share, 0)
        room -= length
    return max(lengths)


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return text[: max(limit - len(_CUT), 0)].rstrip() + _CUT

"""The searches of an oracle: for each gold passage the plainest query that finds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from .dense import PassageIndex
from .records import Passage

_PREFIX_WORDS = (4, 8, 16, 32, 64)


@lru_cache(maxsize=100_000)
def gold_queries(index: PassageIndex, support: Sequence[str], topk: int) -> tuple[str, ...]:
    """For each passage of `support`, a query that has it among its `topk` best.

    The title if that is enough, else the title and a prefix of the text, the shortest that is;
    the title where even the whole text is not (another passage says the same and more).
    """
    found = []
    for id_ in support:
        passage = index.passage(id_)
        candidates = list(_candidates(passage))
        results = index.search(candidates, topk)
        ranked = zip(candidates, results, strict=True)
        hit = (query for query, hits in ranked if any(one.id == id_ for one in hits))
        found.append(next(hit, candidates[0]))
    return tuple(found)


def _candidates(passage: Passage) -> Iterator[str]:
    text = passage.text.split()
    if passage.title.strip():
        yield passage.title
    for size in _PREFIX_WORDS:
        prefix = " ".join(text[:size])
        yield prefix
        yield f"{passage.title} {prefix}".strip()
        if size >= len(text):
            return
    yield f"{passage.title} {passage.text}".strip()

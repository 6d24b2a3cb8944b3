"""Top-k over an index of scored postings: a compiled loop where numba is installed, else NumPy.

Both add a document's scores in float64 in the order of the query's words, and rank by score, then
by place in the corpus: they return the same documents and the same scores, bit for bit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Backend: TypeAlias = Literal["numba", "numpy"]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Scores: TypeAlias = npt.NDArray[np.float64]


class Postings(NamedTuple):
    """Word w is in documents `documents[starts[w]:starts[w + 1]]`, each worth `scores[...]`.

    `scores` (P,) float32, `documents` (P,) int32 ascending within a word, `starts` (V + 1,) int64.
    """

    scores: npt.NDArray[np.float32]
    documents: npt.NDArray[np.int32]
    starts: _Ints


class Ranked(NamedTuple):
    """The best documents of each query: (Q, K), of which the first `counts` (Q,) are filled."""

    documents: npt.NDArray[np.int32]
    scores: _Scores
    counts: npt.NDArray[np.int32]


class Scratch(NamedTuple):
    """Working memory of one thread for N documents; all zero between calls."""

    totals: _Scores
    touched: npt.NDArray[np.int32]

    @classmethod
    def of(cls, size: int) -> Scratch:
        """Scratch for `size` documents."""
        return cls(np.zeros(size, np.float64), np.zeros(size, np.int32))


def fastest() -> Backend:
    """`"numba"` where it is installed."""
    return "numba" if importlib.util.find_spec("numba") else "numpy"


def rank(
    queries: Sequence[Sequence[int]], postings: Postings, scratch: Scratch, k: int, backend: Backend
) -> Ranked:
    """The `k` best documents of each query of word numbers; a repeated word counts again."""
    shape = (len(queries), k)
    ranked = Ranked(
        np.zeros(shape, np.int32), np.zeros(shape, np.float64), np.zeros(len(queries), np.int32)
    )
    if backend == "numpy":
        for place, words in enumerate(queries):
            _rank_numpy(words, postings, len(scratch.totals), place, ranked)
        return ranked
    starts = np.zeros(len(queries) + 1, np.int64)
    np.cumsum([len(words) for words in queries], out=starts[1:])
    flat = np.fromiter((word for words in queries for word in words), np.int64, int(starts[-1]))
    _compiled()(flat, starts, *postings, *scratch, *ranked)
    return ranked


def _rank_numpy(
    words: Sequence[int], postings: Postings, size: int, place: int, ranked: Ranked
) -> None:
    k = ranked.documents.shape[1]
    spans = [slice(int(postings.starts[w]), int(postings.starts[w + 1])) for w in words]
    if not spans or not k:
        return
    documents = np.concatenate([postings.documents[span] for span in spans])
    worth = np.concatenate([postings.scores[span] for span in spans])
    totals = np.bincount(documents, weights=worth, minlength=size)
    found = np.flatnonzero(totals)
    if len(found) > k:
        bound = np.partition(totals[found], len(found) - k)[len(found) - k]
        found = found[totals[found] >= bound]
    best = found[np.lexsort((found, -totals[found]))][:k]
    ranked.documents[place, : len(best)] = best
    ranked.scores[place, : len(best)] = totals[best]
    ranked.counts[place] = len(best)


def _rank_loop(
    words: _Ints,
    word_starts: _Ints,
    worth: npt.NDArray[np.float32],
    documents: npt.NDArray[np.int32],
    starts: _Ints,
    totals: _Scores,
    touched: npt.NDArray[np.int32],
    best: npt.NDArray[np.int32],
    best_scores: _Scores,
    counts: npt.NDArray[np.int32],
) -> None:
    k = best.shape[1]
    for query in range(len(word_starts) - 1):
        size = 0
        for place in range(word_starts[query], word_starts[query + 1]):
            word = words[place]
            for posting in range(starts[word], starts[word + 1]):
                document = documents[posting]
                # Scores are positive, so a total of zero is a document not met before.
                if totals[document] == 0.0:
                    touched[size] = document
                    size += 1
                totals[document] += worth[posting]
        kept = 0
        for place in range(size):
            document = touched[place]
            score = totals[document]
            totals[document] = 0.0
            if kept == k:
                if k == 0 or score < best_scores[query, k - 1]:
                    continue
                if score == best_scores[query, k - 1] and document > best[query, k - 1]:
                    continue
                kept -= 1
            slot = kept
            while slot > 0 and (
                best_scores[query, slot - 1] < score
                or (best_scores[query, slot - 1] == score and best[query, slot - 1] > document)
            ):
                best_scores[query, slot] = best_scores[query, slot - 1]
                best[query, slot] = best[query, slot - 1]
                slot -= 1
            best_scores[query, slot] = score
            best[query, slot] = document
            kept += 1
        counts[query] = kept


@cache
def _compiled() -> Callable[..., None]:
    import numba

    try:
        compiled = numba.njit(nogil=True, cache=True)(_rank_loop)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written: compile in memory.
        compiled = numba.njit(nogil=True)(_rank_loop)
    return cast(Callable[..., None], compiled)

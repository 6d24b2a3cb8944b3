"""Top-k over an index of scored postings: a compiled loop where numba is installed, else NumPy.

Both add a document's scores in float64 in one order of the query's words, and rank by score, then
by place in the corpus: they return the same documents and the same scores, bit for bit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Backend: TypeAlias = Literal["numba", "numpy"]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Scores: TypeAlias = npt.NDArray[np.float64]


class Postings(NamedTuple):
    """Word w is in documents `documents[starts[w]:starts[w + 1]]`, each worth `scores[...]`.

    `scores` (P,) float32 above 0, `documents` (P,) int32 ascending within a word, `starts`
    (V + 1,) int64; `peaks` (V,) float32 is the most that each word is worth in any document.
    """

    scores: npt.NDArray[np.float32]
    documents: npt.NDArray[np.int32]
    starts: _Ints
    peaks: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls, scores: npt.NDArray[Any], documents: npt.NDArray[Any], starts: npt.NDArray[Any]
    ) -> Postings:
        """Postings of words that are each in at least one document."""
        values = np.ascontiguousarray(scores, np.float32)
        bounds = np.ascontiguousarray(starts, np.int64)
        peaks = np.maximum.reduceat(values, bounds[:-1])
        return cls(values, np.ascontiguousarray(documents, np.int32), bounds, peaks)


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
    peaks = postings.peaks
    queries = [sorted(words, key=lambda word: (-peaks[word], word)) for words in queries]
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
    from .loops import rank_all

    rank_all(flat, starts, *postings, *scratch, *ranked)
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

"""The compiled loop of `kernels`; importing this module needs numba.

Words come in falling order of the most that they are worth anywhere. Once the k-th best total so
far beats all that the words still to come are worth together, no further document can enter:
those words are looked up for the documents that can still win, instead of being read whole
(term-at-a-time MaxScore; Turtle and Flood 1995). The result is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numba
import numpy as np
import numpy.typing as npt

_Ints = npt.NDArray[np.int64]
_Places = npt.NDArray[np.int32]
_Worth = npt.NDArray[np.float32]
_Scores = npt.NDArray[np.float64]

_SLACK = 1.0 + 1e-9
"""Bounds add the same numbers in another order than totals do: they may differ in the last bits."""

_SEARCH_COST = 16
"""Looking one document up in a word's postings takes as long as reading so many of them."""


def _jit(function: Callable[..., object]) -> Callable[..., int]:
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written: compile in memory.
        compiled = numba.njit(nogil=True)(function)
    return cast(Callable[..., int], compiled)


def _select(
    touched: _Places, size: int, totals: _Scores, best: _Places, best_scores: _Scores
) -> int:
    """Fill `best` and `best_scores` (K,) with the best of the `size` touched; returns how many."""
    k = len(best)
    kept = 0
    if k == 0:
        return kept
    bound = -1.0
    for place in range(size):
        document = touched[place]
        score = totals[document]
        if kept == k:
            if score < bound or (score == bound and document > best[k - 1]):
                continue
            kept -= 1
        slot = kept
        while slot > 0 and (
            best_scores[slot - 1] < score
            or (best_scores[slot - 1] == score and best[slot - 1] > document)
        ):
            best_scores[slot] = best_scores[slot - 1]
            best[slot] = best[slot - 1]
            slot -= 1
        best_scores[slot] = score
        best[slot] = document
        kept += 1
        if kept == k:
            bound = best_scores[k - 1]
    return kept


def _find(documents: _Places, start: int, end: int, document: int) -> int:
    """The first place in `documents[start:end]`, ascending, that is not below `document`."""
    while start < end:
        middle = (start + end) // 2
        if documents[middle] < document:
            start = middle + 1
        else:
            end = middle
    return start


select = _jit(_select)
find = _jit(_find)


def _prune(touched: _Places, size: int, totals: _Scores, remaining: float, bound: float) -> int:
    """Move the documents that can still win to the front of `touched`; returns how many."""
    kept = 0
    for place in range(size):
        document = touched[place]
        if totals[document] + remaining >= bound:
            touched[place] = touched[kept]
            touched[kept] = document
            kept += 1
    return kept


prune = _jit(_prune)


def _rank_all(
    words: _Ints,
    word_starts: _Ints,
    worth: _Worth,
    documents: _Places,
    starts: _Ints,
    peaks: _Worth,
    totals: _Scores,
    touched: _Places,
    best: _Places,
    best_scores: _Scores,
    counts: _Places,
) -> None:
    k = best.shape[1]
    for query in range(len(word_starts) - 1):
        remaining = 0.0
        for place in range(word_starts[query], word_starts[query + 1]):
            remaining += peaks[words[place]]
        size = winners = 0
        closed = False
        for place in range(word_starts[query], word_starts[query + 1]):
            word = words[place]
            start, end = starts[word], starts[word + 1]
            if not closed:
                winners = size
            if winners >= k and end - start > winners:
                kept = select(touched, winners, totals, best[query], best_scores[query])
                bound = best_scores[query, kept - 1]
                if closed or bound > remaining * _SLACK:
                    closed = True
                    winners = prune(touched, winners, totals, remaining * _SLACK, bound)
            remaining -= peaks[word]
            if closed and winners * _SEARCH_COST > end - start:
                for posting in range(start, end):
                    document = documents[posting]
                    if totals[document] > 0.0:
                        totals[document] += worth[posting]
                continue
            if closed:
                for candidate in range(winners):
                    document = touched[candidate]
                    found = find(documents, start, end, document)
                    if found < end and documents[found] == document:
                        totals[document] += worth[found]
                continue
            for posting in range(start, end):
                document = documents[posting]
                # Scores are positive, so a total of zero is a document not met before.
                if totals[document] == 0.0:
                    touched[size] = document
                    size += 1
                totals[document] += worth[posting]
        if not closed:
            winners = size
        counts[query] = select(touched, winners, totals, best[query], best_scores[query])
        for place in range(size):
            totals[touched[place]] = 0.0


rank_all = _jit(_rank_all)

"""A BM25 index of passages, in memory or memory-mapped from a folder, built with `bm25s`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from agentrl.core.errors import DataError
from agentrl.core.retrieval import Hit

from .kernels import Backend, Postings, Scratch, fastest, rank
from .records import Passage

_WORD = re.compile(r"\w+")


class Scoring(NamedTuple):
    """BM25's two parameters: `k1` saturates repeated words, `b` discounts long passages."""

    k1: float = 0.9
    b: float = 0.4


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, digits and underscores: what index and queries are made of."""
    return _WORD.findall(text.lower())


def document(passage: Passage) -> str:
    """What the index holds of a passage: its title, then its text."""
    return f"{passage.title} {passage.text}"


class Bm25Index:
    """Ranks passages by BM25 (Lucene's variant, arXiv:2407.03618); equal scores by corpus order.

    Safe to use from several threads. `backend` is `"numba"` (compiled) or `"numpy"`; both give
    the same result.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        postings: Postings,
        vocabulary: Mapping[str, int],
        *,
        scoring: Scoring,
        backend: Backend | None = None,
    ) -> None:
        self.passages = passages
        self.postings = postings
        self.vocabulary = vocabulary
        self.scoring = scoring
        self.backend: Backend = backend or fastest()
        self._local = threading.local()
        self._places: dict[str, int] | None = None

    @classmethod
    def build(
        cls,
        passages: Iterable[Passage],
        *,
        scoring: Scoring | None = None,
        backend: Backend | None = None,
    ) -> Bm25Index:
        """Index `passages` in memory.

        Raises:
            DataError: no passage, or none with a word in it.
        """
        import bm25s

        scoring = scoring or Scoring()
        corpus = list(passages)
        vocabulary: dict[str, int] = {}
        numbers = [
            [vocabulary.setdefault(word, len(vocabulary)) for word in words(document(passage))]
            for passage in corpus
        ]
        if not vocabulary:
            raise DataError(f"none of the {len(corpus)} passages to index has a word in it")
        engine = bm25s.BM25(k1=scoring.k1, b=scoring.b, method="lucene", backend="numpy")
        engine.index((numbers, vocabulary), create_empty_token=False, show_progress=False)
        found = engine.scores
        postings = Postings.of(found["data"], found["indices"], found["indptr"])
        return cls(corpus, postings, vocabulary, scoring=scoring, backend=backend)

    def __len__(self) -> int:
        return len(self.passages)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The up to `k` best passages of each query, best first; none where no word is known."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        known = self.vocabulary
        numbers = [[known[word] for word in words(query) if word in known] for query in queries]
        ranked = rank(numbers, self.postings, self._scratch(), min(k, len(self)), self.backend)
        found = []
        for places, scores, count in zip(
            ranked.documents.tolist(), ranked.scores.tolist(), ranked.counts.tolist(), strict=True
        ):
            pairs = zip(places[:count], scores[:count], strict=True)
            found.append([self._hit(place, score) for place, score in pairs])
        return found

    def _hit(self, place: int, score: float) -> Hit:
        id_, title, text = self.passages[place]
        return Hit(id_, title, text, score)

    def passage(self, id_: str) -> Passage:
        """The passage with this id.

        Raises:
            DataError: there is none.
        """
        places = self.places
        if id_ not in places:
            raise DataError(f"no passage of the corpus has the id {id_!r}")
        return self.passages[places[id_]]

    @property
    def places(self) -> Mapping[str, int]:
        """Place of each passage by its id; made when first asked for."""
        if self._places is None:
            self._places = {passage.id: place for place, passage in enumerate(self.passages)}
        return self._places

    def _scratch(self) -> Scratch:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch.of(len(self))
        return scratch


_shared: dict[Hashable, Bm25Index] = {}
_locks: dict[Hashable, threading.Lock] = {}
_registry_lock = threading.Lock()


def shared(source: Hashable, load: Callable[[], Bm25Index]) -> Bm25Index:
    """The index of `source`, loaded once in this process however many environments ask for it."""
    with _registry_lock:
        lock = _locks.setdefault(source, threading.Lock())
    with lock:
        if source not in _shared:
            _shared[source] = load()
        return _shared[source]

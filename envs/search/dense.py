"""Dense and hybrid retrieval: passages by the likeness of their embeddings to the query's."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import DataError, SetupError
from agentrl.core.retrieval import Hit

from .index import Bm25Index, document
from .records import Passage

log = logging.getLogger(__name__)

_Vectors = npt.NDArray[np.float32]
_BATCH = 256
_VERSION = 1
_FUSION = 60
"""The constant of reciprocal rank fusion (Cormack et al., SIGIR 2009)."""
_FUSED_DEPTH = 100


class PassageIndex(Protocol):
    """Ranks the passages of a corpus."""

    def __len__(self) -> int:
        """Number of passages."""
        ...

    def __hash__(self) -> int:
        """That of the object: what is computed for an index is kept for it."""
        ...

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The up to `k` best passages of each query, best first."""
        ...

    def passage(self, id_: str) -> Passage:
        """The passage with this id; `DataError` where there is none."""
        ...


class EncoderSettings(NamedTuple):
    """A sentence encoder (folder or hub id) and what stands before queries and passages.

    E5's are "query: " and "passage: "; many others have none.
    """

    model: str
    query_prompt: str = ""
    passage_prompt: str = ""


class Encoder:
    """Texts to unit vectors, by sentence-transformers; safe to use from several threads."""

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._model = _loaded(settings.model)

    def queries(self, texts: Sequence[str]) -> _Vectors:
        """Vectors (N, D) of queries."""
        return self._encode(texts, self.settings.query_prompt)

    def passages(self, texts: Sequence[str]) -> _Vectors:
        """Vectors (N, D) of passages."""
        return self._encode(texts, self.settings.passage_prompt)

    def _encode(self, texts: Sequence[str], prompt: str) -> _Vectors:
        with self._lock:
            found = self._model.encode(
                [prompt + text for text in texts],
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(found, np.float32)


def _loaded(model: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SetupError(
            'dense retrieval needs the package sentence-transformers: pip install "agentrl[dense]"'
        ) from error
    try:
        return SentenceTransformer(model)
    except Exception as error:
        # The hub client and the loaders raise errors of many kinds.
        said = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise SetupError(
            f"the encoder {model!r} could not be loaded: {type(error).__name__}: {said}"
        ) from error


@lru_cache(maxsize=4)
def shared_encoder(settings: EncoderSettings) -> Encoder:
    """One encoder of these settings for the whole process."""
    return Encoder(settings)


class DenseIndex:
    """Ranks passages by the dot product of unit vectors, exactly; equal scores by corpus order."""

    def __init__(self, passages: Sequence[Passage], vectors: _Vectors, encoder: Encoder) -> None:
        if len(passages) != len(vectors):
            raise DataError(f"{len(passages)} passages have {len(vectors)} embeddings")
        self.passages = passages
        self.vectors = vectors
        self.encoder = encoder
        self._places = {passage.id: place for place, passage in enumerate(passages)}

    @classmethod
    def build(
        cls, passages: Sequence[Passage], encoder: Encoder, *, folder: Path | None = None
    ) -> DenseIndex:
        """Embed `passages`, or take their embeddings from `folder` where they are the same.

        The folder appears only when it is whole.
        """
        if folder is None:
            return cls(passages, _embedded(passages, encoder), encoder)
        digest = _digest(passages, encoder.settings)
        kept = folder / f"dense-{digest[:16]}"
        if not (kept / "meta.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(dir=folder, prefix=".dense-"))
            try:
                np.save(beside / "vectors.npy", _embedded(passages, encoder))
                (beside / "meta.json").write_text(json.dumps({"version": _VERSION}))
                if not kept.exists():
                    beside.rename(kept)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        return cls(passages, np.load(kept / "vectors.npy", mmap_mode="r"), encoder)

    def __len__(self) -> int:
        return len(self.passages)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The up to `k` nearest passages of each query, nearest first."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        scores = self.encoder.queries(queries) @ self.vectors.T
        return [self._best(row, min(k, len(self))) for row in scores]

    def _best(self, scores: npt.NDArray[np.float32], k: int) -> list[Hit]:
        # The k-th best score first, so that of equal ones the earlier passage is taken.
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        near = np.flatnonzero(scores >= bound)
        order = near[np.argsort(-scores[near], kind="stable")][:k]
        return [self._hit(place, float(scores[place])) for place in order.tolist()]

    def _hit(self, place: int, score: float) -> Hit:
        id_, title, text = self.passages[place]
        return Hit(id_, title, text, score)

    def passage(self, id_: str) -> Passage:
        """The passage with this id; `DataError` where there is none."""
        if id_ not in self._places:
            raise DataError(f"no passage of the corpus has the id {id_!r}")
        return self.passages[self._places[id_]]


class HybridIndex:
    """Words and meaning: reciprocal rank fusion of BM25 and embeddings (Cormack et al., 2009).

    A passage's score is the sum of 1 / (60 + its rank) over the rankings that hold it among their
    first hundred (or `k`, if that is more).
    """

    def __init__(self, words: Bm25Index, meaning: DenseIndex) -> None:
        self.words = words
        self.meaning = meaning

    def __len__(self) -> int:
        return len(self.words)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The up to `k` best passages of each query, best first."""
        depth = max(k, _FUSED_DEPTH)
        rankings = (self.words.search(queries, depth), self.meaning.search(queries, depth))
        return [fused(pair, k) for pair in zip(*rankings, strict=True)]

    def passage(self, id_: str) -> Passage:
        """The passage with this id; `DataError` where there is none."""
        return self.words.passage(id_)


def by_meaning(
    words: Bm25Index,
    retrieval: Literal["dense", "hybrid"],
    encoder: EncoderSettings,
    *,
    folder: Path | None = None,
) -> PassageIndex:
    """The passages of `words` ranked by embeddings, which are kept in `folder`, or by both."""
    meaning = DenseIndex.build(words.passages, shared_encoder(encoder), folder=folder)
    return meaning if retrieval == "dense" else HybridIndex(words, meaning)


def fused(rankings: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """The `k` best of several rankings; equal scores in the order in which they were met."""
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1.0 / (_FUSION + rank)
            hits.setdefault(hit.id, hit)
    best = sorted(scores, key=lambda id_: -scores[id_])[:k]
    return [hits[id_]._replace(score=scores[id_]) for id_ in best]


def _embedded(passages: Sequence[Passage], encoder: Encoder) -> _Vectors:
    pieces = []
    for start in range(0, len(passages), _BATCH):
        texts = [document(passage) for passage in passages[start : start + _BATCH]]
        pieces.append(encoder.passages(texts))
        log.info("embedded %d of %d passages", start + len(texts), len(passages))
    if not pieces:
        raise DataError("there is no passage to embed")
    return np.concatenate(pieces)


def _digest(passages: Sequence[Passage], settings: EncoderSettings) -> str:
    digest = hashlib.blake2b(repr((_VERSION, settings)).encode())
    for passage in passages:
        digest.update(repr(tuple(passage)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()

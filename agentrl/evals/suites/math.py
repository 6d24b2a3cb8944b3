"""Suites of mathematics: one attempt, the answer in a box, graded by `agentrl.graders.math`."""

from __future__ import annotations

from typing import Any

from agentrl.evals.suite import Reference, Rows, Suite

_R1 = "https://www.nature.com/articles/s41586-025-09422-z, table 2"
_AVERAGED = (
    "Few tasks: the mean over 16 samples a task is what is usually told, at a temperature of 0.6 "
    "to 1.0."
)
_SAME_FUNCTION = (
    "its answer is f(n)=n; with every letter moved on it reads g(o)=o, the same function"
)
_MAA = "the problems are the MAA's; the label of an upload does not change that"


def _suite(name: str, title: str, rows: Rows, **others: Any) -> Suite:
    kept: dict[str, Any] = {
        "family": "math",
        "env": "math/problems",
        "args": {"prompt": "boxed"},
        "max_turns": 1,
        "max_tokens_per_turn": 4096,
    }
    return Suite(name=name, title=title, rows={"eval": rows}, **{**kept, **others})


SUITES: tuple[Suite, ...] = (
    _suite(
        "gsm8k",
        "GSM8K: grade-school word problems",
        Rows("openai/gsm8k/main@test", "gsm8k/test.jsonl"),
        train=Rows("openai/gsm8k/main@train", "gsm8k/train.jsonl"),
        max_tokens_per_turn=2048,
        size=1319,
        licence="MIT",
        source="arXiv:2110.14168, https://github.com/openai/grade-school-math",
        references=(
            Reference("Qwen2-72B (base, 4 shots)", "correct", 0.895, "https://qwen2.org/?p=167"),
        ),
    ),
    _suite(
        "math500",
        "MATH-500: five hundred of MATH's test problems",
        Rows("HuggingFaceH4/MATH-500@test", "math500/test.jsonl"),
        train=Rows("DigitalLearningGmbH/MATH-lighteval@train", "math500/train.jsonl"),
        size=500,
        licence="MIT on its face; the problems are from contests",
        source="arXiv:2103.03874 and arXiv:2305.20050",
        references=(
            Reference("DeepSeek-R1", "pass@1", 0.973, _R1),
            Reference("DeepSeek-R1-Zero", "pass@1", 0.959, _R1),
        ),
    ),
    _suite(
        "aime24",
        "AIME 2024: both papers",
        Rows("HuggingFaceH4/aime_2024@train", "aime24/test.jsonl"),
        samples=16,
        temperature=0.6,
        max_tokens_per_turn=16_384,
        size=30,
        licence=_MAA,
        source="https://maa.org",
        references=(
            Reference("DeepSeek-R1", "pass@1", 0.798, _R1),
            Reference("DeepSeek-R1-Zero", "pass@1", 0.779, _R1),
        ),
        notes=_AVERAGED,
    ),
    _suite(
        "aime25",
        "AIME 2025: both papers",
        Rows("math-ai/aime25@test", "aime25/test.jsonl"),
        samples=16,
        temperature=0.6,
        max_tokens_per_turn=16_384,
        size=30,
        licence=_MAA,
        source="https://maa.org",
        notes=_AVERAGED,
    ),
    _suite(
        "amc23",
        "AMC 2023",
        Rows("math-ai/amc23@test", "amc23/test.jsonl"),
        samples=16,
        temperature=0.6,
        max_tokens_per_turn=8192,
        size=40,
        licence=_MAA,
        source="https://maa.org",
        notes=_AVERAGED,
    ),
    _suite(
        "olympiadbench",
        "OlympiadBench: open-ended mathematics in English, without images",
        Rows("Hothan/OlympiadBench/OE_TO_maths_en_COMP@train", "olympiadbench_math_en/test.jsonl"),
        max_tokens_per_turn=8192,
        size=675,
        licence="MIT by its collectors; contest problems",
        source="arXiv:2402.14008, https://github.com/OpenBMB/OlympiadBench",
        spoiled_solves=dict.fromkeys(("1681", "2075", "2084"), _SAME_FUNCTION),
    ),
    _suite(
        "minerva",
        "Minerva: undergraduate problems of MIT's courses",
        Rows("math-ai/minervamath@test", "minerva/test.jsonl"),
        size=272,
        licence="MIT OpenCourseWare, CC BY-NC-SA",
        source="arXiv:2206.14858",
    ),
    _suite(
        "svamp",
        "SVAMP: small arithmetic word problems, varied",
        Rows("ChilleD/SVAMP@test", "svamp/test.jsonl"),
        train=Rows("ChilleD/SVAMP@train", "svamp/train.jsonl"),
        max_tokens_per_turn=1024,
        licence="MIT",
        source="arXiv:2103.07191, https://github.com/arkilpatel/SVAMP",
        gold_fails={"chal-680": "its equation ( 4.0 - 2.0 ) + 3.0 comes to 5, its label is 1"},
        notes=(
            "The paper tests on all 1,000 problems; the hub's copy cuts them into train and test."
        ),
    ),
)

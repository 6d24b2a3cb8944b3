"""Suites of program synthesis: one attempt, judged by hidden tests in a sandbox."""

from __future__ import annotations

from typing import Any

from agentrl.evals.suite import Reference, Rows, Suite

_EVALPLUS = "arXiv:2305.01210, https://github.com/evalplus/evalplus"
_QUOTED = "EvalPlus's leaderboard, quoted at https://huggingface.co/NTQAI/Nxcode-CQ-7B-orpo"
_CODER = "https://huggingface.co/spaces/d3LLM/dLLM_Leaderboard, d3LLM_Code/data_dream_coder.yaml"
_R1 = "https://www.nature.com/articles/s41586-025-09422-z, table 2"


def _suite(name: str, title: str, rows: Rows, **others: Any) -> Suite:
    kept: dict[str, Any] = {
        "family": "code",
        "env": "code/functions",
        "args": {"max_turns": 1},
        "score": "hidden",
        "max_turns": 1,
        "max_tokens_per_turn": 2048,
        "needs": ("bwrap",),
    }
    return Suite(name=name, title=title, rows={"eval": rows}, **{**kept, **others})


SUITES: tuple[Suite, ...] = (
    _suite(
        "humaneval",
        "HumanEval: complete a function from its docstring",
        Rows("openai/openai_humaneval@test", "humaneval/test.jsonl"),
        size=164,
        licence="MIT",
        source="arXiv:2107.03374, https://github.com/openai/human-eval",
        references=(
            Reference("Qwen2.5-Coder-7B-Instruct", "pass@1", 0.866, _CODER),
            Reference("GPT-4-Turbo (April 2024)", "pass@1", 0.902, _QUOTED),
        ),
        notes="pass@1 at temperature 0; for pass@10 take --samples 20 and a temperature of 0.8.",
    ),
    _suite(
        "humaneval_plus",
        "HumanEval+: the same problems, many more tests",
        Rows("evalplus/humanevalplus@test", "humaneval_plus/test.jsonl"),
        args={"max_turns": 1, "seconds": 10.0},
        size=164,
        licence="Apache-2.0",
        source=_EVALPLUS,
        references=(
            Reference("Qwen2.5-Coder-7B-Instruct", "pass@1", 0.823, _CODER),
            Reference("GPT-4-Turbo (April 2024)", "pass@1", 0.866, _QUOTED),
        ),
        notes="Reads the hub's rows and those of EvalPlus's own releases.",
    ),
    _suite(
        "mbpp",
        "MBPP: small Python functions, all tests shown",
        Rows("google-research-datasets/mbpp/full@test", "mbpp/mbpp.jsonl@test"),
        train=Rows("google-research-datasets/mbpp/full@train", "mbpp/mbpp.jsonl@train"),
        args={"max_turns": 1, "visible": "all"},
        size=500,
        licence="CC BY 4.0",
        source="arXiv:2108.07732",
        notes="The prompt shows the tests, as in the paper, and has no examples of other tasks.",
    ),
    _suite(
        "mbpp_plus",
        "MBPP+: checked problems of MBPP, many more tests",
        Rows("evalplus/mbppplus@test", "mbpp_plus/test.jsonl"),
        args={"max_turns": 1, "seconds": 10.0},
        size=378,
        licence="Apache-2.0",
        source=_EVALPLUS,
        references=(Reference("Qwen2.5-Coder-7B-Instruct", "pass@1", 0.701, _CODER),),
    ),
    _suite(
        "livecodebench",
        "LiveCodeBench: contest problems, standard input or a method",
        Rows("livecodebench/code_generation_lite/test*.jsonl@train", "livecodebench/test.jsonl"),
        args={"max_turns": 1, "visible": "examples", "attempt_seconds": 50.0},
        temperature=0.2,
        samples=1,
        max_tokens_per_turn=8192,
        size=1055,
        licence="the problems belong to the contests' sites",
        source="arXiv:2403.07974, https://github.com/LiveCodeBench/LiveCodeBench",
        references=(Reference("DeepSeek-R1", "pass@1", 0.659, _R1),),
        unchecked="its rows hold no solutions",
        notes=(
            "All six files of release v6; below --data they are one (`cat test*.jsonl`). For a "
            "window of dates take a file of the rows in it: `contest_date` says when a problem was "
            "new. The reference is of a window of its own."
        ),
    ),
)

"""Suites of screens: web pages and the desktop."""

from __future__ import annotations

from agentrl.evals.suite import Rows, Suite

_DESKTOP = (
    "bwrap",
    "the applications of docs/envs/desktop.md",
)

SUITES: tuple[Suite, ...] = (
    Suite(
        name="miniwob",
        title="MiniWoB++: 103 small web pages as text, ten seeds each",
        family="web",
        env="miniwob/tasks",
        args={"reward": "binary", "eval_seeds": 10, "max_turns": 20},
        score="solved",
        max_turns=20,
        max_tokens_per_turn=512,
        size=1030,
        licence="MIT",
        source="arXiv:1802.08802, https://github.com/Farama-Foundation/miniwob-plusplus",
        needs=("agentrl[miniwob]", "chromium"),
        notes="docs/envs/miniwob.md names the pages that are left out, and why.",
    ),
    Suite(
        name="desktop",
        title="Desktop: 26 tasks over real applications",
        family="desktop",
        env="desktop/tasks",
        args={"max_turns": 15},
        split="all",
        score="success",
        max_turns=15,
        max_tokens_per_turn=1024,
        size=26,
        licence="Apache-2.0 (written for this project)",
        source="docs/envs/desktop.md",
        needs=_DESKTOP,
        notes=(
            "16 of the tasks are the train split of desktop/tasks: for a policy that was trained "
            "there, evaluate its recipe instead, whose ten tasks it has not seen."
        ),
    ),
    Suite(
        name="osworld",
        title="OSWorld: rows in its JSON form, those that run on this desktop",
        family="desktop",
        env="desktop/tasks",
        args={"max_turns": 15},
        rows={"eval": Rows(file="osworld_tasks/tasks.jsonl")},
        score="success",
        max_turns=15,
        max_tokens_per_turn=1024,
        licence="Apache-2.0",
        source="arXiv:2404.07972, https://github.com/xlang-ai/OSWorld",
        needs=_DESKTOP,
        unchecked="its rows hold no solutions",
        notes=(
            "Most tasks need Ubuntu's applications or downloads and are left out: `env.refused` "
            "says why of each. Its score is therefore not OSWorld's."
        ),
    ),
)

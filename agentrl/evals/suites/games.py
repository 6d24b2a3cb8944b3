"""Suites of games in text, with exact states."""

from __future__ import annotations

from agentrl.evals.suite import Rows, Suite

_BOXOBAN = "https://github.com/google-deepmind/boxoban-levels"

SUITES: tuple[Suite, ...] = (
    Suite(
        name="sokoban",
        title="Sokoban: 6 x 6 cells, one box, made by seed",
        family="games",
        env="games/sokoban",
        args={"reward": "binary", "max_turns": 20, "eval_tasks": 64},
        score="solved",
        max_turns=20,
        max_tokens_per_turn=512,
        size=64,
        licence="Apache-2.0 (made by this project)",
        source="in the manner of arXiv:2504.20073 (RAGEN)",
    ),
    *(
        Suite(
            name=name,
            title=f"Boxoban, {kind}: 10 x 10 cells, four boxes",
            family="games",
            env="games/sokoban",
            args={"reward": "binary", "max_turns": 40, "actions_per_turn": 10},
            rows={"levels": Rows(file=f"sokoban_boxoban/{kind}.jsonl")},
            split="train",
            score="solved",
            max_turns=40,
            max_tokens_per_turn=1024,
            licence="Apache-2.0",
            source=_BOXOBAN,
            notes=(
                "Rows with `grid` and, for the check, `solution`. A text file of the repository, "
                f"saved as {kind}.jsonl, is read too. Up to ten moves a turn."
            ),
        )
        for name, kind in (
            ("boxoban", "unfiltered"),
            ("boxoban_medium", "medium"),
            ("boxoban_hard", "hard"),
        )
    ),
    Suite(
        name="frozenlake",
        title="FrozenLake: 8 x 8 cells, not slippery, made by seed",
        family="games",
        env="games/frozenlake",
        args={"size": 8, "max_turns": 30, "eval_tasks": 64},
        score="goal",
        max_turns=30,
        max_tokens_per_turn=512,
        size=64,
        licence="Apache-2.0 (made by this project)",
        source="Gymnasium's FrozenLake-v1",
    ),
)

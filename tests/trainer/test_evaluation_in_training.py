"""The evaluations of a run: tasks are the unit, and what was lost is counted and told."""

from __future__ import annotations

from collections import Counter
from io import StringIO

import pytest
from rich.console import Console

from agentrl.core.types import ROOT, Group, StopReason, Task
from agentrl.evals.statistics import mean_interval
from agentrl.recipe.schema import Recipe
from agentrl.testing.trees import tree_of
from agentrl.trainer.display import Display, shown
from agentrl.trainer.loop import Loop


class Fleet:
    """Plays three samples of each task: right as told, and lost as told."""

    capacity = 1

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups

    async def play(self, jobs, *, done) -> list[Group]:
        return self.groups


def group(task: str, rewards: list[float | None]) -> Group:
    """One sample for each of `rewards`; None is one that was lost."""
    stops = {i: StopReason.ENV_ERROR for i, reward in enumerate(rewards) if reward is None}
    known = {i: reward for i, reward in enumerate(rewards) if reward is not None}
    return Group(
        f"eval-{task}", task, (tree_of([ROOT] * len(rewards), known, stops=stops, task_id=task),)
    )


def loop_of(groups: list[Group], tmp_path, told: StringIO) -> Loop:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "env": {"id": "toy"},
            "policy": {"model": "m"},
            "engine": {"type": "transformers"},
            "eval": {"score": "answer", "samples": 3},
            "log": {"trees": 0},
        }
    )
    return Loop(
        recipe,
        fleet=Fleet(groups),
        learner=None,
        sync=None,
        tasks=[Task("x")],
        eval_tasks=[Task(g.task_id) for g in groups],
        out=tmp_path,
        display=Display(Console(file=told, width=200)),
        log=None,
        checkpoints=None,
        lost=Counter(),
    )


async def test_the_samples_of_a_task_are_one_number_and_lost_ones_are_counted(tmp_path) -> None:
    groups = [
        group("a", [1.0, 1.0, 1.0]),
        group("b", [1.0, 0.0, None]),
        group("c", [0.0, 0.0, 0.0]),
        group("d", [None, None, None]),
    ]
    told = StringIO()
    loop = loop_of(groups, tmp_path, told)
    found = await loop._evaluate()
    wanted = mean_interval([1.0, 0.5, 0.0])
    assert found["eval/answer_mean"] == 0.5
    assert (found["eval/answer_low"], found["eval/answer_high"]) == (wanted.low, wanted.high)
    assert (found["eval/tasks"], found["eval/failed_episodes"]) == (3.0, 4.0)
    assert "4 episodes failed and 1 tasks could not be played" in told.getvalue()
    assert loop.evaluations[-1].interval.method == "cluster_wilson"


@pytest.mark.parametrize(
    ("values", "name", "text"),
    [
        ([1.0] * 8 + [0.0] * 2, "em", "80.0 % [49.0, 94.3]"),
        ([1.0], "em", "100.0 % (no interval)"),
        ([1.5, 2.5], "reward", "2.000 [-4.353, 8.353]"),
    ],
)
def test_a_value_is_shown_with_its_interval_or_with_the_want_of_one(values, name, text) -> None:
    assert shown(name, mean_interval(values)) == text

"""Task order, metrics and plots of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from agentrl.core.errors import DataError
from agentrl.core.types import Task
from agentrl.trainer.display import plot
from agentrl.trainer.metrics import MetricsLog, read_metrics
from agentrl.trainer.tasks import TaskOrder

TASKS = [Task(str(index)) for index in range(7)]


def test_every_epoch_takes_each_task_once_and_a_position_alone_gives_the_tasks() -> None:
    order = TaskOrder(TASKS, seed=3)
    taken = order.take(0, 21)
    for epoch in range(3):
        assert {t.id for t in taken[epoch * 7 : epoch * 7 + 7]} == {t.id for t in TASKS}
    assert taken[:7] != taken[7:14]
    assert TaskOrder(TASKS, seed=3).take(10, 5) == taken[10:15]
    assert TaskOrder(TASKS, seed=4).take(0, 21) != taken


def test_an_environment_without_tasks_is_refused() -> None:
    with pytest.raises(DataError, match="no training tasks"):
        TaskOrder([], seed=0)


def test_metrics_are_read_back_and_a_resumed_run_drops_what_it_writes_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tensorboard=True, start=0)
    for iteration in range(1, 5):
        log.write(iteration, {"rollout/reward_mean": iteration / 4, "x/nan": math.nan})
    log.close()
    assert list((tmp_path / "tensorboard").iterdir())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 5, "rollout/rew')  # what a kill leaves
    MetricsLog(tmp_path, tensorboard=False, start=3).close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [1, 2]
    assert rows[1]["rollout/reward_mean"] == 0.5
    assert rows[1]["x/nan"] is None


def test_a_broken_line_in_the_middle_of_the_metrics_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        json.dumps({"iteration": 1}) + "\nnonsense\n" + json.dumps({"iteration": 2}) + "\n"
    )
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a JSON line"):
        read_metrics(path)


def test_the_plot_puts_the_lowest_value_at_the_bottom_and_the_last_at_the_right() -> None:
    text = plot("t", [(0, 0.0), (10, 1.0)], width=11, height=3)
    lines = text.split("\n")
    assert lines[0] == "t"
    assert lines[1] == "   1.000 ┤" + " " * 10 + "●"
    assert lines[3] == "   0.000 ┤●" + " " * 10
    assert plot("t", []) == "t: no points"

"""Runs that are disturbed in their second iteration, and the processes that they are made of."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

ITERATIONS = 3
"""One before the harm, one that it is done to, one after it."""

OVERRIDES = [
    "runtime=ray",
    "env.seconds=0.4",
    f"train.iterations={ITERATIONS}",
    "train.tasks_per_iteration=2",
    "eval.at_start=false",
    "eval.at_end=false",
    "eval.every=0",
    "log.trees=0",
    "log.tensorboard=false",
]
ROLLOUT, RANK = "ray::RolloutActor", "ray::RankActor"
ENV_HOST = "agentrl-hosts-"  # in the path of its socket; other hosts of this process have others


def pids_of(kind: str, parent: int | None = None) -> list[int]:
    """Processes under `parent` (this one by default) whose command line holds `kind`."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if kind in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(what: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    return False


class Ended(NamedTuple):
    """Metrics of a run by iteration, and the processes that were killed."""

    rows: list[dict[str, float]]
    killed: list[int]

    def total(self, name: str) -> float:
        return sum(row[name] for row in self.rows)


def disturbed(
    recipe: Path, out: Path, harm: Callable[[], list[int]] | None, *overrides: str
) -> Ended:
    """A run to which `harm` is done while its second iteration is played."""
    killed: list[int] = []

    def watch() -> None:
        if wait_for((out / "checkpoints" / "step-000001").exists, 120):
            time.sleep(0.3)
            killed.extend(harm() if harm else [])

    saboteur = threading.Thread(target=watch)
    saboteur.start()
    run(load(recipe, [*OVERRIDES, *overrides]), out=out)
    saboteur.join()
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == list(range(ITERATIONS + 1))
    assert (out / "policy" / "model.safetensors").is_file()
    left = wait_for(lambda: not any(pids_of(kind) for kind in (ROLLOUT, RANK, ENV_HOST)), 20)
    assert left, "processes of the run are still there"
    return Ended(rows[1:], killed)


def kill(kind: str) -> Callable[[], list[int]]:
    def harm() -> list[int]:
        found = pids_of(kind)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return found

    return harm

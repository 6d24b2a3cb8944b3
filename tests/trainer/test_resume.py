"""A run that is killed and resumed ends as the uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl import store
from agentrl.trainer.metrics import read_metrics

pytestmark = pytest.mark.slow


def start(recipe: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agentrl", "run", str(recipe), *arguments, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


def numbers(out: Path) -> list[dict[str, float]]:
    """Every metric that is not a time."""
    return [
        {k: v for k, v in row.items() if "time" not in k and "second" not in k}
        for row in read_metrics(out / "metrics.jsonl")
    ]


def kill_twice(recipe: Path, killed: Path, seed: str, *arguments: str) -> None:
    """A run in `killed` that is killed at two moments and then resumed to its end."""
    rng = random.Random(seed)
    for _ in range(2):
        resume = ["--resume"] if killed.exists() else []
        process = start(recipe, killed, *arguments, *resume)
        # Killed somewhere after its first new checkpoint, in the middle of whatever it does then.
        seen = len(list((killed / "checkpoints").glob("step-*")))
        newest = max((p.name for p in (killed / "checkpoints").glob("step-*")), default="")
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            now = max((p.name for p in (killed / "checkpoints").glob("step-*")), default="")
            if now > newest:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(list((killed / "checkpoints").glob("step-*"))) >= seen
    finish(start(recipe, killed, *arguments, "--resume"))


def test_killed_runs_end_with_the_metrics_of_the_uninterrupted_one(
    recipe_file: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(recipe_file, whole))
    expected = numbers(whole)
    assert [row["iteration"] for row in expected] == list(range(9))
    assert expected[-1]["rollout/reward_mean"] != expected[1]["rollout/reward_mean"]
    kill_twice(recipe_file, killed, "sync")
    assert numbers(killed) == expected


def test_runs_that_play_ahead_lose_and_repeat_no_group_when_they_are_killed(
    recipe_file: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    kill_twice(recipe_file, killed, "async", "train.max_lag=2")
    rows = numbers(killed)
    assert [row["iteration"] for row in rows] == list(range(9))
    assert max(row["policy/lag_max"] for row in rows[1:]) in (1, 2)
    assert all(row["rollout/trajectories"] == 12 for row in rows[1:])
    trained = [
        group.id
        for path in sorted((killed / "trees").glob("iteration-*.parquet"))
        for group in store.read(path)
    ]
    assert sorted(trained) == [f"{i:06d}-{j:04d}" for i in range(8) for j in range(3)]

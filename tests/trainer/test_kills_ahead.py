"""What dies while a run plays ahead, and a driver that dies: nothing is lost, nothing stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from kill_fakes import ENV_HOST, ITERATIONS, OVERRIDES, RANK, ROLLOUT, disturbed, kill, wait_for

from agentrl import store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", [ROLLOUT, RANK])
def test_what_dies_while_groups_are_played_ahead_is_replaced_and_no_group_is_lost(
    cluster: None, recipe_file: Path, tmp_path: Path, kind: str
) -> None:
    ended = disturbed(recipe_file, tmp_path / "run", kill(kind), "train.max_lag=1", "log.trees=1")
    assert len(ended.killed) == 1
    lost = ended.total("workers/members_lost"), ended.total("workers/learners_restarted")
    assert lost == ((1, 0) if kind == ROLLOUT else (0, 1))
    assert max(row["policy/lag_max"] for row in ended.rows) == 1
    files = sorted((tmp_path / "run" / "trees").glob("iteration-*.parquet"))
    trained = [group.id for file in files for group in store.read(file)]
    assert sorted(trained) == [f"{i:06d}-{j:04d}" for i in range(ITERATIONS) for j in range(2)]


def test_a_killed_driver_takes_everything_with_it(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "agentrl", "run", str(recipe_file), *OVERRIDES]
    command += ["rollout.env_hosts=1", "train.iterations=1000", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for((out / "checkpoints" / "step-000001").exists, 120)
    under = psutil.Process(process.pid).children(recursive=True)
    names = {one: " ".join(one.cmdline()).strip() for one in under}
    for kind in (ROLLOUT, RANK, ENV_HOST):
        assert any(kind in name for name in names.values()), kind
    process.kill()
    process.wait()
    # Two agents of Ray's own report the end to its head for a minute before they see it is gone.
    ours = [one for one in under if not names[one].endswith("Agent")]
    _, alive = psutil.wait_procs(ours, timeout=20)
    assert not [names[one] for one in alive]

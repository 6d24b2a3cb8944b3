"""Whatever dies during a run, the run ends well, says what it lost and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from kill_fakes import ENV_HOST, ITERATIONS, RANK, ROLLOUT, disturbed, kill, pids_of, wait_for

pytestmark = pytest.mark.slow


def test_a_killed_rollout_worker_is_replaced(
    cluster: None, recipe_file: Path, tmp_path: Path
) -> None:
    hosts: list[int] = []

    def harm() -> list[int]:
        hosts.extend(pids_of(ENV_HOST))
        killed = kill(ROLLOUT)()
        # The environment host goes with the worker that started it.
        assert wait_for(lambda: not set(hosts) & set(pids_of(ENV_HOST)), 5)
        return killed

    ended = disturbed(recipe_file, tmp_path / "run", harm, "rollout.env_hosts=1")
    assert len(ended.killed) == 1 and len(hosts) == 1
    assert not psutil.pid_exists(hosts[0])
    assert ended.total("workers/members_lost") == 1
    assert ended.total("workers/episodes_lost") == 8
    assert ended.total("rollout/trajectories") == ITERATIONS * 8
    assert ended.total("workers/learners_restarted") == 0


def test_a_killed_environment_host_costs_retries_only(
    cluster: None, recipe_file: Path, tmp_path: Path
) -> None:
    ended = disturbed(recipe_file, tmp_path / "run", kill(ENV_HOST), "rollout.env_hosts=1")
    assert len(ended.killed) == 1
    assert 1 <= ended.total("env/retried_episodes") <= 8
    assert ended.total("env/failed_episodes") == 0
    assert ended.total("rollout/trajectories") == ITERATIONS * 8
    assert ended.total("workers/members_lost") == 0


def test_a_dead_engine_is_restarted_with_the_current_weights(
    cluster: None, recipe_file: Path, tmp_path: Path
) -> None:
    ended = disturbed(recipe_file, tmp_path / "run", arm, "env.id=trainer_fakes:EngineBreakerEnv")
    assert not Path(os.environ["ENGINE_BREAKER"]).exists()
    assert ended.total("workers/engines_restarted") == 1
    assert ended.total("workers/episodes_lost") >= 4
    assert ended.total("workers/members_lost") == 0
    assert all(row["policy/probe_difference_largest"] < 1e-3 for row in ended.rows)


def arm() -> list[int]:
    Path(os.environ["ENGINE_BREAKER"]).touch()
    return []


def test_a_killed_learner_goes_on_from_the_checkpoint_as_if_nothing_had_been(
    cluster: None, recipe_file: Path, tmp_path: Path
) -> None:
    # Nothing is killed in it, so nobody has to meet it while it plays.
    whole = disturbed(recipe_file, tmp_path / "whole", None, "env.seconds=0")
    ended = disturbed(recipe_file, tmp_path / "killed", kill(RANK))
    assert len(ended.killed) == 1
    assert ended.total("workers/learners_restarted") == 1
    assert [numbers(row) for row in ended.rows] == [numbers(row) for row in whole.rows]


def numbers(row: dict[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in row.items()
        if not any(part in name for part in ("time", "second", "workers/"))
    }


def test_a_dead_vllm_engine_is_restarted(cluster: None, recipe_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    ended = disturbed(
        recipe_file,
        tmp_path / "run",
        arm,
        "env.id=trainer_fakes:EngineBreakerEnv",
        "engine={type: vllm, max_model_len: 256, kv_cache_gib: 0.05, threads: 1}",
    )
    assert ended.total("workers/engines_restarted") == 1
    assert ended.total("workers/episodes_lost") >= 4
    assert all(row["policy/probe_difference_largest"] < 1e-3 for row in ended.rows)

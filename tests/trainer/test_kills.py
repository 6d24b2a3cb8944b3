"""Whatever dies during a run, the run ends well, says what it lost and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from agentrl import store
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

pytestmark = pytest.mark.slow

OVERRIDES = [
    "runtime=ray",
    "env.seconds=0.4",
    "train.iterations=4",
    "train.tasks_per_iteration=2",
    "eval.at_start=false",
    "eval.at_end=false",
    "eval.every=0",
    "log.trees=0",
    "log.tensorboard=false",
]
ROLLOUT, RANK = "ray::RolloutActor", "ray::RankActor"
ENV_HOST = "agentrl-hosts-"  # in the path of its socket; other hosts of this process have others


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("ENGINE_BREAKER", str(tmp_path_factory.mktemp("arm") / "armed"))
        # "local": never the cluster that somebody else has started on this machine.
        ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
        yield
        ray.shutdown()


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
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3, 4]
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
    assert ended.total("rollout/trajectories") == 4 * 8
    assert ended.total("workers/learners_restarted") == 0


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
    assert sorted(trained) == [f"{i:06d}-{j:04d}" for i in range(4) for j in range(2)]


def test_a_killed_environment_host_costs_retries_only(
    cluster: None, recipe_file: Path, tmp_path: Path
) -> None:
    ended = disturbed(recipe_file, tmp_path / "run", kill(ENV_HOST), "rollout.env_hosts=1")
    assert len(ended.killed) == 1
    assert 1 <= ended.total("env/retried_episodes") <= 8
    assert ended.total("env/failed_episodes") == 0
    assert ended.total("rollout/trajectories") == 4 * 8
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
    whole = disturbed(recipe_file, tmp_path / "whole", None)
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

"""Runs on a Ray cluster: weights cross nodes, folders must be shared, addresses are joined."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentrl import store
from agentrl.core.errors import EngineError, SetupError
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

if TYPE_CHECKING:
    from ray._private.node import Node as ClusterNode
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ON_RAY = ["runtime=ray", "train.iterations=2", "eval.at_start=false", "eval.at_end=false"]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Cluster, ClusterNode]]:
    """A cluster of the driver's node and of another one, each a raylet of this machine."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("PYTHONPATH", str(HERE))
        patch.setenv("OMP_NUM_THREADS", "1")
        # A node that does not answer is given up after five looks: 3 s and not 15.
        often = {"health_check_period_ms": 500}
        head = {"num_cpus": 1, "_system_config": often}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        # Ray takes our word for the GPU: it draws ranks whose `learner.device` is not "cpu".
        other = cluster.add_node(num_cpus=1, num_gpus=1)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield cluster, other
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def two_nodes(pair: tuple[Cluster, ClusterNode]) -> list[str]:
    """Ids of the driver's node and of the other one."""
    import ray

    found: list[str] = [ray.get_runtime_context().get_node_id(), pair[1].node_id]
    return found


@pytest.fixture
def started(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, recipe_file: Path
) -> Iterator[Path]:
    """The folder of a cluster that `ray start` made from another folder; `auto` finds it."""
    # Ray's sockets lie in it, and their paths must be short.
    folder = tmp_path_factory.mktemp("r")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-and-nothing-else",
        "RAY_TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    ray = str(Path(sys.executable).with_name("ray"))
    options = ["--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", f"--port={port}", f"--temp-dir={folder}", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "ray_current_cluster").exists():
            assert time.monotonic() < deadline
            assert head.poll() is None
            time.sleep(0.1)
        yield folder
    finally:
        # `ray stop` would end every cluster of this machine; this ends the one that it blocks on.
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)


def test_cluster_auto_joins_the_running_one_and_relative_paths_are_the_drivers(
    started: Path, recipe_file: Path, tmp_path: Path
) -> None:
    arguments = [str(recipe_file), *ON_RAY, "cluster=auto", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "agentrl", "run", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((started / "session_latest" / "logs").glob("worker-*-01000000-*.out"))
    newest = tmp_path / "run" / "checkpoints" / "step-000002"
    assert (newest / "learner" / "learner.json").is_file()
    assert (tmp_path / "run" / "policy" / "model.safetensors").is_file()
    assert not (started / "run").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"no Ray cluster answers at '127.0.0.1:1' .*ray start --head"),
        ("ray://127.0.0.1:10001", "is no address of a Ray cluster"),
        ("head", "is no address of a Ray cluster"),
    ],
)
def test_a_missing_cluster_is_a_setup_error_at_once(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from agentrl.workers.cluster import connect

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    begun = time.monotonic()
    with pytest.raises(SetupError, match=said):
        connect(address)
    assert time.monotonic() - begun < 10


def test_too_few_gpus_are_a_setup_error_and_no_endless_wait(two_nodes: list[str]) -> None:
    from agentrl.workers.placement import require_gpus

    require_gpus(ranks=2, gpus_per_rank=0, workers=4, gpus_per_worker=0.0)
    with pytest.raises(SetupError, match=r"asks for 3\.5 GPUs .* and the cluster has 1"):
        require_gpus(ranks=2, gpus_per_rank=1, workers=3, gpus_per_worker=0.5)


def test_numbers_are_dealt_to_living_nodes_with_processors_in_turn() -> None:
    from agentrl.workers.placement import deal, threads_per_rank

    def node(name: str, cpus: float, *, alive: bool = True) -> dict[str, object]:
        return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus}}

    nodes = [node("a", 4), node("b", 0), node("c", 4), node("d", 4, alive=False), node("e", 1)]
    assert [deal(i, nodes, first="c") for i in range(5)] == ["c", "a", "e", "c", "a"]
    assert deal(3, [node("head", 0)], first="head") == "head"
    # Ranks of three nodes: one each, then two on one of them, which may be the smallest.
    assert [threads_per_rank(n, nodes[:1] * 3) for n in (1, 3, 4, 7)] == [4, 4, 2, 1]
    assert threads_per_rank(1, nodes) == 1
    assert threads_per_rank(2, [node("head", 0)]) == 1


@pytest.mark.parametrize(("device", "home"), [("cpu", 0), ("auto", 1)])
def test_a_run_over_two_nodes_carries_the_weights_from_the_learners_to_the_other(
    device: str,
    home: int,
    two_nodes: list[str],
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from agentrl.workers.nodes import Courier

    brought: list[tuple[str, int, Path, Path]] = []
    carried: list[tuple[str, ...]] = []
    bring, carry = Courier.bring, Courier._carry

    async def watched_bring(self: Courier, weights: Path, version: int, node: str) -> Path:
        path = await bring(self, weights, version, node)
        brought.append((node, version, weights, path))
        return path

    async def watched_carry(self: Courier, weights: Path, nodes: list[str]) -> object:
        carried.append(tuple(nodes))
        return await carry(self, weights, nodes)

    monkeypatch.setattr(Courier, "bring", watched_bring)
    monkeypatch.setattr(Courier, "_carry", watched_carry)
    out = tmp_path / "run"
    run(load(recipe_file, [*ON_RAY, "rollout.workers=2", f"learner.device={device}"]), out=out)

    assert {(node, version) for node, version, _, _ in brought} == {
        (node, version) for node in two_nodes for version in (0, 1, 2)
    }
    assert {node for node, _, weights, path in brought if path == weights} == {two_nodes[home]}
    assert carried == [(two_nodes[1 - home],)] * 3
    rows = read_metrics(out / "metrics.jsonl")
    assert all(row["policy/probe_difference_largest"] < 1e-4 for row in rows)
    for iteration in (1, 2):
        groups = store.read(out / "trees" / f"iteration-{iteration:06d}.parquet")
        turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
        assert {turn.policy_version for turn in turns} == {iteration - 1}
    assert not [folder for *_, path in brought if (folder := path.parent).exists()]


async def test_a_file_of_another_node_arrives_whole_and_once_to_each(
    two_nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentrl.workers import nodes

    monkeypatch.setattr(nodes, "CHUNK_BYTES", 100_000)
    here, there = two_nodes
    courier = nodes.Courier()
    courier.start_from(there)
    courier.register(here)
    content = np.random.default_rng(0).bytes(1_234_567)
    weights = tmp_path / "w" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(content)
    assert await courier.bring(weights, 3, there) == weights
    copy = await courier.bring(weights, 3, here)
    assert copy != weights
    assert copy.read_bytes() == content
    weights.write_bytes(content[::-1][:1_000_000])
    assert (await courier.bring(weights, 3, here)).read_bytes() == content
    assert (await courier.bring(weights, 4, here)).read_bytes() == content[::-1][:1_000_000]
    # EEPO publishes one version three times: the policy, what it forgot, and the policy again.
    courier.renewed()
    weights.write_bytes(content[::-1])
    assert (await courier.bring(weights, 4, here)).read_bytes() == content[::-1]
    courier.start_from(there)
    weights.write_bytes(content)
    assert (await courier.bring(weights, 4, here)).read_bytes() == content
    weights.unlink()
    with pytest.raises(EngineError, match=r"did not travel from node .* No such file"):
        await courier.bring(weights, 5, here)
    courier.close()
    assert not weights.parent.exists()


def test_a_folder_that_a_node_does_not_see_is_named(
    two_nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentrl.workers import nodes

    nodes.require_shared(tmp_path, two_nodes)
    # The nodes of this cluster share a disk: another file is looked for in the marker's place.
    appears = nodes._appears
    monkeypatch.setattr(nodes, "_MARKER_SECONDS", 0.2)
    monkeypatch.setattr(nodes, "_appears", lambda path: appears("/elsewhere" + path))
    with pytest.raises(SetupError, match=r"does not see .*would be lost.*--out"):
        nodes.require_shared(tmp_path, two_nodes)
    assert not list(tmp_path.iterdir())


def test_a_policy_folder_that_is_missing_on_a_node_is_named(two_nodes: list[str]) -> None:
    from agentrl.workers import nodes

    nodes.require_policy("Qwen/Qwen3-0.6B")
    with pytest.raises(SetupError, match=r"/no/such/policy is not on node .* hub id"):
        nodes.require_policy("/no/such/policy")


def test_a_run_goes_on_without_a_node_that_is_lost(
    pair: tuple[Cluster, ClusterNode],
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The last test of this file: the other node does not come back.
    from agentrl.workers.nodes import Courier

    cluster, other = pair
    bring = Courier.bring

    async def loses_a_node(self: Courier, weights: Path, version: int, node: str) -> Path:
        path = await bring(self, weights, version, node)
        if version == 1 and other in cluster.worker_nodes:
            cluster.remove_node(other, allow_graceful=False)
        return path

    monkeypatch.setattr(Courier, "bring", loses_a_node)
    out = tmp_path / "run"
    run(load(recipe_file, [*ON_RAY, "rollout.workers=2", "learner.device=cpu"]), out=out)
    rows = read_metrics(out / "metrics.jsonl")
    assert sum(row.get("workers/members_lost", 0) for row in rows) >= 1
    assert rows[-1]["iteration"] == 2
    assert all(row["policy/probe_difference_largest"] < 1e-4 for row in rows)

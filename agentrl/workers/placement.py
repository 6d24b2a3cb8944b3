"""On which nodes of a Ray cluster ranks and members run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from agentrl.core.errors import SetupError
from agentrl.workers.nodes import this_node

_RESERVE_SECONDS = 60.0


def gpus_per_rank(device: str) -> int:
    """What a rank reserves: one GPU, where the cluster has any and `device` allows it."""
    return int(device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)


def require_gpus(*, ranks: int, gpus_per_rank: float, workers: int, gpus_per_worker: float) -> None:
    """Raise `SetupError` where the cluster has too few GPUs: Ray would wait for more for ever."""
    found = ray.cluster_resources().get("GPU", 0)
    wanted = ranks * gpus_per_rank + workers * gpus_per_worker
    if wanted > found:
        raise SetupError(
            f"the recipe asks for {wanted:g} GPUs (learner.ranks = {ranks} of {gpus_per_rank:g} "
            f"and rollout.workers = {workers} of rollout.gpus_per_worker = {gpus_per_worker:g}) "
            f"and the cluster has {found:g}. Lower them, or join more nodes to the cluster; with "
            "gpus_per_worker: 0 a worker reserves nothing and shares the first GPU of its machine"
        )


def reserve(ranks: int) -> PlacementGroup:
    """A GPU for each rank, on as few nodes as possible; to be made before members take theirs."""
    group = placement_group([{"GPU": 1}] * ranks, strategy="PACK")
    if not group.wait(_RESERVE_SECONDS):
        ray.util.remove_placement_group(group)
        raise SetupError(
            f"learner.ranks: {ranks} GPUs did not become free within {_RESERVE_SECONDS:g} seconds; "
            "`ray status` on the cluster says what holds them"
        )
    return group


def strategy(index: int, *, gpus: float, group: PlacementGroup | None = None) -> object:
    """Ray's scheduling strategy for rank or member number `index`, which reserves `gpus`.

    Who reserves no GPU is dealt to the living nodes in turn, the driver's first: Ray itself would
    put all on any one of them.
    """
    if group is not None:
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    if gpus:
        return "DEFAULT"
    node = deal(index, ray.nodes(), first=this_node())
    return NodeAffinitySchedulingStrategy(node, soft=False)


def deal(index: int, nodes: Sequence[dict[str, Any]], *, first: str) -> str:
    """Id of the node for number `index`: `first`, the other living nodes with CPUs, and again."""
    able: list[str] = [node["NodeID"] for node in _able(nodes)]
    order = sorted(able, key=lambda node: (node != first, node)) or [first]
    return order[index % len(order)]


def threads_per_rank(ranks: int, nodes: Sequence[dict[str, Any]]) -> int:
    """CPU threads for each of `ranks` that are dealt to `nodes`: the smallest node decides."""
    cores = [int(node["Resources"]["CPU"]) for node in _able(nodes)]
    if not cores:
        return 1
    ranks_per_node = -(-ranks // len(cores))
    return max(1, min(cores) // ranks_per_node)


def _able(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]

"""What samplers share: playing a line to its end, and a tree that does not tell who was faster."""

from __future__ import annotations

from asyncio import Future, ensure_future
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from agentrl.core.types import ROOT, Failure, TrajectoryTree
from agentrl.rollout.deadline import all_ended
from agentrl.rollout.player import Episode
from agentrl.rollout.seeds import derive

LineKey: TypeAlias = tuple[int, ...]
"""Name of a line: its number, and for a branch (its parent's name, turn, number at that turn)."""


def turn_seed(seed: int, key: LineKey, turn: int) -> int:
    """Seed of a line's `turn`-th proposal: no two proposals of a task share it."""
    return derive(seed, "turn", *key, "at", turn)


async def play_to_end(episode: Episode, *, seed: int, key: LineKey) -> TrajectoryTree:
    """Play `episode` until it ends and free its environment."""
    turn = 0
    try:
        while completion := await episode.propose(seed=turn_seed(seed, key, turn)):
            turn += 1
            if await episode.play(completion) is not None:
                break
    finally:
        await episode.close()
    return episode.tree


async def close_all(episodes: Iterable[Episode], *, players: Iterable[Future[None]] = ()) -> None:
    """End `players`, then close `episodes` at once; all of them, also where this is cancelled."""
    playing = list(players)
    for one in playing:
        one.cancel()
    try:
        await all_ended(playing)
    finally:
        await all_ended([ensure_future(episode.close()) for episode in episodes])


def in_order(tree: TrajectoryTree, keys: Mapping[int, LineKey]) -> TrajectoryTree:
    """`tree` with its nodes in depth-first order, siblings in order of the lines that added them.

    `keys` names the line of each node. Nodes are numbered as lines finish their turns; after this
    the numbers depend only on who continued whom.
    """
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents):
        children.setdefault(parent, []).append(node)
    ordered = TrajectoryTree(tree.task_id, tree.prompt_ids, group_id=tree.group_id, seed=tree.seed)
    numbers = {ROOT: ROOT}
    stack = [ROOT]
    while stack:
        node = stack.pop()
        if node != ROOT:
            numbers[node] = ordered.add(numbers[tree.parents[node]], tree.turns[node])
        below = children.get(node, ())
        stack += sorted(below, key=lambda child: (keys[child], child), reverse=True)
    for node in sorted(tree.leaves, key=numbers.__getitem__):
        ordered.end(numbers[node], tree.leaves[node])
    ordered.failures = sorted(
        (
            Failure(numbers[failure.parent], failure.stop_reason, failure.message)
            for failure in tree.failures
        ),
        key=lambda failure: (failure.parent, failure.stop_reason, failure.message),
    )
    return ordered

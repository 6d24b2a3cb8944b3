"""Stored successes that take part in the comparison of groups that failed as a whole."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from agentrl import store
from agentrl.core.types import ROOT, Group, Trajectory, TrajectoryTree
from agentrl.recipe.selection import ReplaySettings
from agentrl.rollout.seeds import derive
from agentrl.trainer.summary import attempt_scores, component

_FILE = "replay.parquet"


def succeeded(group: Group, score: str) -> bool:
    """True where a trajectory of `group` scores above 0."""
    return any(value > 0.0 for value in attempt_scores(group, score))


def failed(group: Group, score: str) -> bool:
    """True where `group` was played and none of it scores above 0.

    Failures of infrastructure and what has no score are no attempts: a group of nothing else has
    not failed.
    """
    scores = [value for value in attempt_scores(group, score) if math.isfinite(value)]
    return bool(scores) and not succeeded(group, score)


def replayed(group: Group) -> list[TrajectoryTree]:
    """The trees of `group` that were played for an earlier one."""
    return [tree for tree in group.trees if tree.group_id != group.id]


class Replay:
    """The newest successes of each task, at most `capacity`, and their use.

    ARPO for GUI agents (arXiv:2505.16282, section 3). A stored trajectory keeps the
    log-probabilities and versions of the policy that sampled it, so the loss takes its importance
    ratio against that policy: it is clipped, or truncated and weighed by `learner.correction`,
    where the released code computes the log-probabilities anew, which makes the ratio 1 whatever
    the distance. Other differences: the released condition (standard deviation < 0.05 and mean
    < 0.2) becomes the paper's, no score above 0; failures of infrastructure do not count as scores
    of 0; and off is off.
    """

    def __init__(self, settings: ReplaySettings, *, score: str, seed: int) -> None:
        self._capacity = settings.capacity
        self._score = score
        self._seed = seed
        self._stored: dict[str, deque[TrajectoryTree]] = {}

    def inject(self, groups: Sequence[Group]) -> list[Group]:
        """`groups`, each that failed with one stored success of its task, if there is one.

        It takes the place of a trajectory that was lost to infrastructure, or else of the first
        tree that is one trajectory, so the group keeps its size; where all trees have several
        trajectories it joins them. Which one is drawn depends on the seed and the group's name.
        """
        return [self._injected(group) for group in groups]

    def add(self, groups: Iterable[Group]) -> None:
        """Store the successes of `groups`; call it when no group of the iteration is left."""
        for group in groups:
            for trajectory in group.trajectories():
                if trajectory.stop_reason.is_failure:
                    continue
                if component(trajectory, self._score) > 0.0:
                    kept = self._stored.setdefault(group.task_id, deque(maxlen=self._capacity))
                    kept.append(_chain(trajectory))

    def __len__(self) -> int:
        return sum(len(kept) for kept in self._stored.values())

    def groups(self) -> list[Group]:
        """What is stored, the oldest first, as a group for each task: for `write`."""
        return [Group(task, task, tuple(kept)) for task, kept in self._stored.items()]

    @staticmethod
    def write(folder: Path, groups: Sequence[Group]) -> None:
        """Write what `groups` gave into `folder`."""
        store.write(folder / _FILE, groups)

    def read(self, folder: Path) -> None:
        """Go on from what `write` left in `folder`."""
        self._stored = {
            group.task_id: deque(group.trees, maxlen=self._capacity)
            for group in store.read(folder / _FILE)
        }

    def _injected(self, group: Group) -> Group:
        kept = self._stored.get(group.task_id)
        if not kept or not failed(group, self._score):
            return group
        chosen = kept[derive(self._seed, "replay", group.id) % len(kept)]
        place = _place(group.trees)
        return replace(group, trees=(*group.trees[:place], chosen, *group.trees[place + 1 :]))


def _place(trees: Sequence[TrajectoryTree]) -> int:
    """The tree that gives way; their number where none does."""
    lost = [all(reason.is_failure for reason in tree.leaves.values()) for tree in trees]
    alone = [len(tree.leaves) == 1 for tree in trees]
    for gives_way in (lost, alone):
        if True in gives_way:
            return gives_way.index(True)
    return len(trees)


def _chain(trajectory: Trajectory) -> TrajectoryTree:
    """A tree of one trajectory alone."""
    whole = trajectory.tree
    tree = TrajectoryTree(whole.task_id, whole.prompt_ids, group_id=whole.group_id, seed=whole.seed)
    node = ROOT
    for turn in trajectory.turns:
        node = tree.add(node, turn)
    tree.end(node, trajectory.stop_reason)
    return tree

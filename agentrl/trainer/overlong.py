"""The price of length: a penalty on trajectories that come near the limit, before any baseline."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

from agentrl.core.types import Group, TrajectoryTree, Turn
from agentrl.recipe.selection import OverlongSettings

COMPONENT = "overlong"
"""Name of the penalty among the components of the reward."""


def penalty(tokens: int, settings: OverlongSettings) -> float:
    """What a trajectory of so many action tokens pays, from 0 to -`penalty`."""
    over = tokens - (settings.length - settings.buffer)
    return -settings.penalty * min(max(over / settings.buffer, 0.0), 1.0) + 0.0


def punish_length(groups: Iterable[Group], settings: OverlongSettings) -> list[Group]:
    """`groups` whose last turns have the component `overlong` (see `OverlongSettings`).

    Only action tokens count, along the whole path; a failure of infrastructure pays nothing. The
    trees are new, their other turns the same objects.
    """
    return [
        replace(group, trees=tuple(_punished(tree, settings) for tree in group.trees))
        for group in groups
    ]


def _punished(tree: TrajectoryTree, settings: OverlongSettings) -> TrajectoryTree:
    twin = copy.copy(tree)
    twin.turns = list(tree.turns)
    for leaf, reason in tree.leaves.items():
        if not reason.is_failure:
            tokens = sum(len(tree.turns[node].action_ids) for node in tree.path(leaf))
            twin.turns[leaf] = _with(tree.turns[leaf], penalty(tokens, settings))
    return twin


def _with(turn: Turn, value: float) -> Turn:
    # Where the environment names no parts, what it paid is one, so that they still sum up.
    own = turn.rewards or ({"environment": turn.reward} if turn.reward else {})
    return replace(turn, rewards={**own, COMPONENT: value}, reward=turn.reward + value)

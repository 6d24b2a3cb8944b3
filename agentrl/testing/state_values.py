"""A critic that is a table: what states are worth, by the returns that followed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from agentrl.core.types import ROOT, Group
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums
from agentrl.credit.table import TurnTable


def state_values(groups: Sequence[Group]) -> dict[str, float]:
    """By state key, the mean of what turns that acted from there were still to be paid.

    That is the table that a critic learns by least squares, each turn of a tree worth the mean over
    its trajectories.
    """
    table, keys = TurnTable.of(groups), _keys(groups)
    levels = Levels.of(table)
    leaves = subtree_sums(levels, at_leaves(table, np.ones(len(table.leaf_turn))))
    shares = leaves / np.where(table.parent == ROOT, 1.0, np.maximum(leaves[table.parent], 1.0))
    to_go = subtree_sums(levels, table.reward, shares)
    return {key: float(to_go[keys == key].mean()) for key in sorted({*keys.tolist()})}


def with_state_values(groups: Sequence[Group], values: Mapping[str, float]) -> TurnTable:
    """The table of `groups` with a critic's values: every token's is that of its turn's state."""
    table = TurnTable.of(groups)
    by_turn = np.asarray([values[key] for key in _keys(groups).tolist()])
    return replace(table, values=np.repeat(by_turn, table.tokens))


def _keys(groups: Sequence[Group]) -> np.ndarray:
    """The state key of every turn (K,), in the order of the table."""
    keys = [turn.state_key for group in groups for tree in group.trees for turn in tree.turns]
    return np.asarray(keys, np.str_)

"""Values of nodes from those of the leaves below them, and methods that compare turns by them."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit.groups import EQUAL, Grain, GroupBaseline, LeafAdvantages, against_group
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums
from agentrl.credit.table import Bool, Credit, Int64, TurnTable


class NodeValues(NamedTuple):
    """Values of all K nodes; the tree is that of a task, whose root is its prompt.

    So chains are branches of one tree. `above` (K,) is the value of the node before, for a first
    turn that of the `root` (K,); `leaves` (K,) counts the trajectories of the statistics that pass
    through the node. A node without any has the value 0.
    """

    value: Float64
    above: Float64
    root: Float64
    leaves: Float64


def leaves_below(table: TurnTable, levels: Levels, counted: Bool) -> Float64:
    """How many of the `counted` (L,) leaves lie below each turn (K,), itself included."""
    return subtree_sums(levels, at_leaves(table, counted.astype(np.float64)))


def node_values(
    table: TurnTable, levels: Levels, values: Float64, counted: Bool, weight: Float64
) -> NodeValues:
    """V of all nodes from `values` (L,): a leaf's own, else the mean of its children's.

    `weight` (K,), at least 0, is each child's in that mean; those without a counted leaf below
    have none. Every child alike is a mean over children, `leaves_below` one over leaves.
    """
    leaves = leaves_below(table, levels, counted)
    siblings = _siblings(table)
    weight = np.where(leaves > 0, weight, 0.0)
    total = np.bincount(siblings, weight, len(weight) + table.n_groups)
    share = weight / np.maximum(total, np.finfo(np.float64).tiny)[siblings]
    value = subtree_sums(levels, at_leaves(table, np.where(counted, values, 0.0)), share)
    every = np.bincount(siblings, share * value, len(weight) + table.n_groups).astype(np.float64)
    every[: len(weight)] = value
    return NodeValues(value, every[siblings], every[len(weight) + table.group], leaves)


def softmax_weight(table: TurnTable, logits: Float64, counted: Bool) -> Float64:
    """exp(logits) (K,), each divided by the largest of its siblings with `counted` (K,)."""
    siblings = _siblings(table)
    largest = np.full(len(logits) + table.n_groups, -np.inf)
    np.maximum.at(largest, siblings[counted], logits[counted])
    logits = np.where(counted, logits, -np.inf) - np.maximum(largest, -1e300)[siblings]
    return np.exp(logits).astype(np.float64)


def _siblings(table: TurnTable) -> Int64:
    """Equal (K,) for turns that continue one node: its row, or K + the group for first turns."""
    return np.where(table.parent == ROOT, len(table.parent) + table.group, table.parent)


def difference(one: Float64, other: Float64) -> Float64:
    """What `one` is above `other`, exactly 0 where the two differ by rounding alone."""
    found = one - other
    allowed = EQUAL * np.maximum(1.0, np.maximum(np.abs(one), np.abs(other)))
    return np.where(np.abs(found) <= allowed, 0.0, found)


class NodeCredit(GroupBaseline):
    """Methods that give every turn one advantage, from the values of its tree's nodes.

    A method gives `advantages`. `scale` and `truncated` are as in `GroupBaseline`; a group of one
    has nothing to compare.
    """

    scale: Literal["std", "none"] = "std"
    singleton: Literal["zero", "error"] = "zero"
    ddof: ClassVar[Literal[0, 1]] = 1

    @property
    def grain(self) -> Grain:
        """A turn has one advantage."""
        return "turn"

    def advantages(
        self, table: TurnTable, levels: Levels, values: Float64, counted: Bool
    ) -> Float64:
        """A (K,) of all turns from the `values` (L,) of the leaves that are `counted` (L,)."""
        raise NotImplementedError

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Which leaves train, and their values. Raises ContractError as `GroupBaseline`."""
        levels = levels or Levels.of(table)
        leaves = super().compare(table, levels)
        values, _ = self.values(table, levels)
        return leaves._replace(advantage=np.where(leaves.trains, values, 0.0))

    def values(self, table: TurnTable, levels: Levels) -> tuple[Float64, Bool]:
        """Values (L,) of all leaves beside their group, and which of them count (L,)."""
        returns = self.returns(table, levels)
        found = against_group(
            returns.value,
            table.leaf_group,
            returns.counted,
            table.n_groups,
            scale=self.scale,
            ddof=self.ddof,
        )
        return found.advantage, returns.counted

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all turns; `row_weights` (L,) as from `aggregate.row_weights`."""
        levels = levels or Levels.of(table)
        leaves = leaves or self.compare(table, levels)
        advantage = self.advantages(table, levels, *self.values(table, levels))
        weight = subtree_sums(levels, at_leaves(table, leaves.trains * row_weights))
        credit = Credit(
            positive=weight * np.maximum(advantage, 0.0),
            negative=weight * np.minimum(advantage, 0.0),
            weight=weight,
        )
        return self.shared(table, levels, credit, leaves.trains)

    def shared(self, table: TurnTable, levels: Levels, credit: Credit, trains: Bool) -> Credit:
        """`credit` as it counts turns that several trajectories share: once for each of them."""
        return credit


def counted_once(
    table: TurnTable, levels: Levels, credit: Credit, trains: Bool, *, drop_zero: bool
) -> Credit:
    """`credit` of turns that count once: divided by how many `trains` (L,) pass through each.

    So a turn has the mean of their row weights. `drop_zero` leaves turns without an advantage out
    of the loss and of its denominator.
    """
    copies = np.maximum(leaves_below(table, levels, trains), 1.0)
    kept = (credit.positive != 0.0) | (credit.negative != 0.0) | (not drop_zero)
    return Credit(
        credit.positive / copies,
        credit.negative / copies,
        np.where(kept, credit.weight / copies, 0.0),
        once=True,
    )

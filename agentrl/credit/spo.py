"""SPO: a turn is worth the difference that it makes to the value of its tree's node."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.nodes import NodeCredit, counted_once, difference, node_values
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, Credit, TurnTable


class SpoCredit(NodeCredit):
    """Segment advantages in a tree (SPO-tree, arXiv:2505.23564), a segment being a turn.

    With `rollout.sampling.segment_tokens` it is a segment of one, as in the paper.

        V(leaf) = R,   V(n) = mean of V over the children of n
        A(n)    = V(n) - V(parent)

    with the task's prompt as root. Every turn counts once, however many trajectories share it, and
    turns with A = 0 are left out of the loss and of its denominator, both as in the released code.
    `scale="std"` divides by the standard deviation of the task's returns (its option; ours is the
    sample's, and adds 1e-6 where it adds 1e-8). On chains only first turns train, with R - mean:
    a turn that has no sibling decides nothing.

    The chain version, which estimates V at cut points by extra rollouts, is not there.
    """

    type: Literal["spo"] = "spo"
    scale: Literal["none", "std"] = "none"

    def advantages(
        self, table: TurnTable, levels: Levels, values: Float64, counted: Bool
    ) -> Float64:
        """A (K,) of all turns."""
        alike = np.ones(len(table.parent))
        nodes = node_values(table, levels, values, counted, alike)
        return difference(nodes.value, nodes.above)

    def shared(self, table: TurnTable, levels: Levels, credit: Credit, trains: Bool) -> Credit:
        """`credit` with each turn counted once, and none that is worth 0."""
        return counted_once(table, levels, credit, trains, drop_zero=True)

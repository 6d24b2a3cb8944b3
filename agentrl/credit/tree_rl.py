"""TreeRL: a turn is worth what it adds to the expected return, globally and locally."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.nodes import NodeCredit, difference, leaves_below, node_values
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, TurnTable


class TreeRlCredit(NodeCredit):
    """Process rewards from a tree's leaves (TreeRL, arXiv:2506.11902).

    With R_i the return of leaf i, n leaves in the task's tree and L(s) those below turn s:

        a_i  = R_i - mean of the other R_j
        V(s) = mean of a_i over L(s)
        A(s) = ((V(s) - V(root)) + (V(s) - V(parent))) / sqrt(|L(s)|)

    the global and the local advantage; the root, which divides by what a shared turn is repeated
    in the batch, keeps many weak copies from outweighing the rest. V(root) is 0 by construction.
    On chains this is RLOO, the first turn's twice (it is all that its parent, the prompt, chose).

    Differs from the released code, which divides the values by the roots of their own counts
    before it takes differences and puts the value of the node before in place of a difference of 0.
    """

    type: Literal["tree_rl"] = "tree_rl"
    scale: Literal["none"] = "none"

    def values(self, table: TurnTable, levels: Levels) -> tuple[Float64, Bool]:
        """Leave-one-out advantages (L,) of all leaves, and which of them count (L,)."""
        deviation, counted = super().values(table, levels)
        size = np.bincount(table.leaf_group, counted, table.n_groups)[table.leaf_group]
        return deviation * size / np.maximum(size - 1, 1), counted

    def advantages(
        self, table: TurnTable, levels: Levels, values: Float64, counted: Bool
    ) -> Float64:
        """A (K,) of all turns."""
        leaves = leaves_below(table, levels, counted)
        nodes = node_values(table, levels, values, counted, leaves)
        gains = difference(nodes.value, nodes.root) + difference(nodes.value, nodes.above)
        gains /= np.sqrt(np.maximum(leaves, 1.0))
        return gains

"""AT2PO: every turn is worth the mean value of the branches that follow it."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Float64
from agentrl.credit.nodes import (
    NodeCredit,
    counted_once,
    difference,
    leaves_below,
    node_values,
    softmax_weight,
)
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, Credit, TurnTable


class At2poCredit(NodeCredit):
    """Turn-level values in the tree of a task (AT2PO, arXiv:2601.04767).

    With R_i the return of leaf i and H(n) the mean of -log p over the sampled tokens of turn n:

        V(leaf i) = (R_i - mean of the tree) / (std of the tree + 1e-6)     ddof = 0, as published
        V(n)      = sum over children c of w_c V(c)
        A(n)      = V(n) | V(n) - V(parent) | V(n) - V(root) | both differences added

    `node_value` sets w_c: "softmax" exp(H(c)) / sum exp(H) (uncertain branches count more; the
    released script's choice), "children" all alike, "leaves" by the number of leaves below, so
    that V is their mean. `against` chooses A: "nothing" is V(n), the best of the paper.

    The tree is that of the task, its root the prompt; so on chains V(n) is the trajectory's own
    value and this is GRPO (with ddof = 0), whatever `node_value`. Children without a trajectory
    that counts are in no mean; a turn without tokens has H = 0.

    The released code trains one row for each leaf, so that a turn of d leaves counts d times:
    `prefix_weighting: leaf_sum`. With "node_once" it counts once, at the mean of its row weights.
    Singletons: 0, as in the release, whose std of one leaf is 0.
    """

    type: Literal["at2po"] = "at2po"
    node_value: Literal["softmax", "children", "leaves"] = "softmax"
    against: Literal["nothing", "parent", "root", "both"] = "nothing"
    prefix_weighting: Literal["leaf_sum", "node_once"] = "leaf_sum"
    ddof: ClassVar[Literal[0, 1]] = 0

    @property
    def needs_tokens(self) -> bool:
        """Only the softmax looks at the tokens' log-probabilities."""
        return self.node_value == "softmax"

    def advantages(
        self, table: TurnTable, levels: Levels, values: Float64, counted: Bool
    ) -> Float64:
        """A (K,). Raises ContractError where "softmax" has no log-probabilities."""
        leaves = leaves_below(table, levels, counted)
        weight = np.ones(len(table.parent)) if self.node_value == "children" else leaves
        if self.node_value == "softmax":
            weight = softmax_weight(table, turn_uncertainty(table), leaves > 0)
        nodes = node_values(table, levels, values, counted, weight)
        if self.against == "nothing":
            return nodes.value
        parent = difference(nodes.value, nodes.above)
        root = difference(nodes.value, nodes.root)
        return {"parent": parent, "root": root, "both": parent + root}[self.against]

    def shared(self, table: TurnTable, levels: Levels, credit: Credit, trains: Bool) -> Credit:
        """`credit` with each turn counted as `prefix_weighting` says."""
        if self.prefix_weighting == "leaf_sum":
            return credit
        return counted_once(table, levels, credit, trains, drop_zero=False)


def turn_uncertainty(table: TurnTable) -> Float64:
    """H (K,): the mean of -log p over each turn's sampled tokens; 0 for a turn without any."""
    if table.logprobs is None:
        raise ContractError(
            "credit 'at2po' weighs branches by the log-probabilities of their tokens, which this "
            "table lacks: make it by TurnTable.of(groups, with_tokens=True), or set "
            "credit.node_value to 'children' or 'leaves'"
        )
    turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
    surprise = -table.logprobs.astype(np.float64)
    total = np.bincount(turn, surprise, len(table.tokens)).astype(np.float64)
    total /= np.maximum(table.tokens, 1)
    return total

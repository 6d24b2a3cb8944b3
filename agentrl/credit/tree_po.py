"""TreePO: a trajectory's return against the mean of every subtree that it passes through."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.grpo import SoftAttribution
from agentrl.credit.nodes import difference, leaves_below
from agentrl.credit.reinforce_pp import whitened
from agentrl.credit.subtree import Levels, at_leaves, path_sums, subtree_sums, trajectory_sums
from agentrl.credit.table import Bool, TurnTable


class TreePoCredit(SoftAttribution):
    """Tree-based segment advantages (TreePO, arXiv:2508.17445), a segment being a turn.

    With `rollout.sampling.segment_tokens` it is a segment of one, as in the paper.

    With P_0 the task's prompt and P_d the first d turns of trajectory i, before its last:

        x_d = R_i - mean of R over the trajectories that share P_d
        A_i = mean of x_d over d = 0 and all d that two or more trajectories share

    then, with `scale="std"`, whitened over the tokens of the iteration: (A - mean) divided by
    sqrt(variance + 1e-8), ddof = 1, every token of every trajectory counting once. `weighting:
    leaves` weighs x_d by the number of trajectories that share P_d; "alike" is what the released
    script uses. On chains only d = 0 is left: R - mean.

    Whitening takes the mean of the iteration away, so that a group whose returns are all equal gets
    an advantage where other groups' do not balance; `scale="none"` keeps it at exactly 0.
    """

    type: Literal["tree_po"] = "tree_po"
    scale: Literal["std", "none"] = "std"
    singleton: Literal["zero", "error"] = "zero"
    weighting: Literal["alike", "leaves"] = "alike"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves. Raises ContractError as `GroupBaseline.compare`."""
        levels = levels or Levels.of(table)
        found = super().compare(table, levels)
        value, _, counted = self.returns(table, levels)
        value = np.where(counted, value, 0.0)
        advantage = difference(value, self._baseline(table, levels, value, counted))
        if self.scale == "std":
            tokens = trajectory_sums(table, levels, table.tokens.astype(np.float64))
            # What is masked does not train and is in the statistics all the same.
            compared = counted & (found.compared[table.leaf_group] > 1)
            advantage = whitened(advantage, np.where(compared, tokens, 0.0))
        return found._replace(advantage=np.where(found.trains, advantage, 0.0))

    def _baseline(self, table: TurnTable, levels: Levels, value: Float64, counted: Bool) -> Float64:
        """Weighted mean (L,) of the means of all subtrees that a leaf lies in."""
        group, above = table.leaf_group, table.parent[table.leaf_turn]
        size = leaves_below(table, levels, counted)
        mean = subtree_sums(levels, at_leaves(table, value)) / np.maximum(size, 1.0)
        weight = np.where(size > 1, self._weight(size), 0.0)
        above_weight, above_mean = (
            np.where(above == ROOT, 0.0, path_sums(levels, one)[above])
            for one in (weight, weight * mean)
        )
        root_size = np.maximum(np.bincount(group[counted], minlength=table.n_groups), 1.0)
        root_mean = np.bincount(group, value, table.n_groups) / root_size
        root_weight = self._weight(root_size)
        total = root_weight * root_mean
        baseline: Float64 = (total[group] + above_mean) / (root_weight[group] + above_weight)
        return baseline

    def _weight(self, size: Float64) -> Float64:
        return size if self.weighting == "leaves" else np.ones_like(size)

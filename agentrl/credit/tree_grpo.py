"""Tree-GRPO: a trajectory's return against its tree, and against all trees of its task."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from agentrl.credit.groups import GroupBaseline, LeafAdvantages
from agentrl.credit.grpo import SoftAttribution
from agentrl.credit.subtree import Levels
from agentrl.credit.table import TurnTable


class TreeGrpoCredit(SoftAttribution):
    """Intra-tree plus inter-tree advantages (Tree-GRPO, arXiv:2509.21240, section 3.3).

    With R the return of a leaf, each term in float64 over its survivors:

        A_intra = (R - mean of its tree)  / (std of its tree  + 1e-6)
        A_inter = (R - mean of its group) / (std of its group + 1e-6)
        A       = A_intra + A_inter

    `terms` "intra" or "inter" leaves the other one out; "inter" is GRPO on the tree's leaves. A
    tree with one leaf has no A_intra (the released code adds the raw return there; that is
    `singleton="raw"`), so on trees without a fork this is GRPO, and with one tree for each task
    twice GRPO. At an importance ratio of 1 a shared turn's gradient carries the sum over its
    leaves, which makes a fork a preference between the steps that follow it (proposition 3.1).
    """

    type: Literal["tree_grpo"] = "tree_grpo"
    terms: Literal["both", "intra", "inter"] = "both"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves; counts are those of the groups, for "intra" of the trees.

        `trains` is False only where no term has anything to compare. Raises ContractError as
        `GroupBaseline.compare`; a tree of one leaf is no error beside others of its group.
        """
        levels = levels or Levels.of(table)
        if self.terms == "inter":
            return super().compare(table, levels)
        by_tree = replace(
            table,
            leaf_group=table.tree[table.leaf_turn],
            n_groups=int(table.tree.max(initial=-1)) + 1,
        )
        if self.terms == "intra":
            return super().compare(by_tree, levels)
        inter = super().compare(table, levels)
        lenient = {"singleton": "zero"} if self.singleton == "error" else {}
        # The plain comparison of the base class, with this method's settings, over trees.
        intra = GroupBaseline.compare(self.model_copy(update=lenient), by_tree, levels)
        advantage = np.where(inter.trains, intra.advantage + inter.advantage, 0.0)
        return inter._replace(advantage=advantage)

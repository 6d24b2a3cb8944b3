"""RAFT's filter: of each group the best trajectories, or all that succeed."""

from __future__ import annotations

from typing import Literal

from agentrl.core.settings import Settings
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.table import TurnTable
from agentrl.filters.scores import Scores, above, only


class BestFilter(Settings):
    """Keeps of each group what is worth imitating (RAFT, arXiv:2304.06767; RAFT++, 2504.11343).

    A trajectory succeeds where its score is above `above`; no other is ever kept, or a group of
    failures would be reinforced. "best" keeps the successes with the group's highest score (all of
    equals), "successes" every one. Advantages stay those of the whole group; with
    `credit: {type: reinforce, worth: one}` what is kept is imitated, which is RAFT (and RAFT++
    where the loss clips the ratio). The score is `eval.score`.
    """

    type: Literal["best"] = "best"
    keep: Literal["best", "successes"] = "best"
    above: float = 0.0

    def __call__(self, table: TurnTable, leaves: LeafAdvantages) -> LeafAdvantages:
        """The successes of `leaves`, or the best of them."""
        scores = Scores.of(table)
        kept = scores.finite & above(scores.value, self.above)
        if self.keep == "best":
            kept &= ~above(scores.best[table.leaf_group], scores.value)
        return only(leaves, kept)

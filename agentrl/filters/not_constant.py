"""Dynamic sampling's filter: groups whose scores are all the same do not train."""

from __future__ import annotations

from typing import Literal

from agentrl.core.settings import Settings
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.table import TurnTable
from agentrl.filters.scores import Scores, only


class NotConstantFilter(Settings):
    """Keeps the groups that have two different scores (DAPO, arXiv:2503.14476, eq. 11).

        0 < number of right answers < G

    With scores of right and wrong that takes out the groups that are all right and those that are
    all wrong, as Reinforce-Rej does (arXiv:2504.11343); with graded scores those without any
    spread. The score is `eval.score`, not the reward: a shaped reward makes a group of right
    answers look informative. Equality is tested with a tolerance (1e-9), where released code
    tests `std > 0`, which rounding passes. A group with fewer than two scores is constant.
    """

    type: Literal["not_constant"] = "not_constant"

    def __call__(self, table: TurnTable, leaves: LeafAdvantages) -> LeafAdvantages:
        """`leaves` of the groups that are not constant."""
        return only(leaves, ~Scores.of(table).constant[table.leaf_group])

"""Credit: pure functions from trees to what each turn is worth."""

from typing import Annotated, TypeAlias

from pydantic import Field

from agentrl.credit.aggregate import assign, row_weights
from agentrl.credit.arpo import ArpoCredit
from agentrl.credit.at2po import At2poCredit
from agentrl.credit.bilevel_gae import BilevelGaeCredit
from agentrl.credit.gae import GaeCredit
from agentrl.credit.gigpo import GigpoCredit
from agentrl.credit.grpo import GrpoCredit
from agentrl.credit.hgpo import HgpoCredit
from agentrl.credit.mt_grpo import MtGrpoCredit
from agentrl.credit.opo import OpoCredit
from agentrl.credit.otb import OtbCredit
from agentrl.credit.pass_at_k import PassAtKCredit
from agentrl.credit.reinforce import ReinforceCredit
from agentrl.credit.reinforce_pp import ReinforcePPCredit
from agentrl.credit.rloo import RlooCredit
from agentrl.credit.spo import SpoCredit
from agentrl.credit.table import Credit, TurnTable
from agentrl.credit.tree_grpo import TreeGrpoCredit
from agentrl.credit.tree_po import TreePoCredit
from agentrl.credit.tree_rl import TreeRlCredit
from agentrl.credit.turn_gae import TurnGaeCredit
from agentrl.credit.turn_grpo import TurnGrpoCredit

AnyCredit: TypeAlias = Annotated[
    GrpoCredit
    | RlooCredit
    | OpoCredit
    | OtbCredit
    | PassAtKCredit
    | ReinforceCredit
    | ReinforcePPCredit
    | TurnGrpoCredit
    | MtGrpoCredit
    | ArpoCredit
    | TreeGrpoCredit
    | At2poCredit
    | TreeRlCredit
    | TreePoCredit
    | SpoCredit
    | GigpoCredit
    | HgpoCredit
    | GaeCredit
    | TurnGaeCredit
    | BilevelGaeCredit,
    Field(discriminator="type"),
]
"""Every credit method that a recipe can name."""

__all__ = [
    "AnyCredit",
    "ArpoCredit",
    "At2poCredit",
    "BilevelGaeCredit",
    "Credit",
    "GaeCredit",
    "GigpoCredit",
    "GrpoCredit",
    "HgpoCredit",
    "MtGrpoCredit",
    "OpoCredit",
    "OtbCredit",
    "PassAtKCredit",
    "ReinforceCredit",
    "ReinforcePPCredit",
    "RlooCredit",
    "SpoCredit",
    "TreeGrpoCredit",
    "TreePoCredit",
    "TreeRlCredit",
    "TurnGaeCredit",
    "TurnGrpoCredit",
    "TurnTable",
    "assign",
    "row_weights",
]

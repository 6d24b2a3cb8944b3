"""Credit: pure functions from trees to what each turn is worth."""

from typing import Annotated, TypeAlias

from pydantic import Field

from agentrl.credit.aggregate import assign, row_weights
from agentrl.credit.arpo import ArpoCredit
from agentrl.credit.gigpo import GigpoCredit
from agentrl.credit.grpo import GrpoCredit
from agentrl.credit.reinforce_pp import ReinforcePPCredit
from agentrl.credit.rloo import RlooCredit
from agentrl.credit.table import Credit, TurnTable
from agentrl.credit.tree_grpo import TreeGrpoCredit

AnyCredit: TypeAlias = Annotated[
    GrpoCredit | RlooCredit | ReinforcePPCredit | ArpoCredit | TreeGrpoCredit | GigpoCredit,
    Field(discriminator="type"),
]
"""Every credit method that a recipe can name."""

__all__ = [
    "AnyCredit",
    "ArpoCredit",
    "Credit",
    "GigpoCredit",
    "GrpoCredit",
    "ReinforcePPCredit",
    "RlooCredit",
    "TreeGrpoCredit",
    "TurnTable",
    "assign",
    "row_weights",
]

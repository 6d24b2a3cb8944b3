"""Samplers: which turn to expand next, from which node, and when to stop."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from agentrl.samplers.aepo import AepoSampler
from agentrl.samplers.arpo import ArpoSampler
from agentrl.samplers.arpo_released import ArpoReleasedSampler
from agentrl.samplers.at2po import At2poSampler
from agentrl.samplers.chain import ChainSampler
from agentrl.samplers.eepo import EepoSampler
from agentrl.samplers.mcts import MctsSampler
from agentrl.samplers.spo import SpoSampler
from agentrl.samplers.tree import TreeSampler
from agentrl.samplers.tree_rl import TreeRlSampler

AnySampler: TypeAlias = Annotated[
    ChainSampler
    | ArpoSampler
    | ArpoReleasedSampler
    | AepoSampler
    | EepoSampler
    | TreeSampler
    | At2poSampler
    | SpoSampler
    | MctsSampler
    | TreeRlSampler,
    Field(discriminator="type"),
]
"""Samplers by the name in `type`; a new one is added here."""

__all__ = [
    "AepoSampler",
    "AnySampler",
    "ArpoReleasedSampler",
    "ArpoSampler",
    "At2poSampler",
    "ChainSampler",
    "EepoSampler",
    "MctsSampler",
    "SpoSampler",
    "TreeRlSampler",
    "TreeSampler",
]

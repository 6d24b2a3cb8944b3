"""The plan of an evaluation: which policy plays which suites, and how; written before it starts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.engine.settings import AnyEngine
from agentrl.rollout.settings import RolloutSettings


class PlannedSuite(Settings):
    """One suite as it will be played: every default filled in.

    `env`, `args` and `split` give the tasks, of which the first `tasks` (None: all) are played
    `samples` times each at `temperature`.
    """

    name: str
    version: int
    env: str
    args: dict[str, object] = Field(default_factory=dict)
    split: str = "eval"
    score: str
    also: tuple[str, ...] = ()
    tasks: int | None = Field(default=None, ge=1)
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    max_turns: int = Field(default=8, ge=1)
    max_tokens_per_turn: int = Field(default=2048, ge=1)

    @property
    def tag(self) -> str:
        """Name and version, as samples cite it."""
        return f"{self.name}@{self.version}"


class Price(Settings):
    """Cost of a million tokens, in any one currency."""

    prompt: float = Field(ge=0.0)
    generated: float = Field(ge=0.0)


class EvalPlan(Settings):
    """Everything that decides what an evaluation does: equal plans may be resumed by each other.

    `policy` is how the user named it; `engine` serves it, `model` is its folder or hub id (empty:
    a policy that speaks text, without tokens of its own). Limits of a suite stand in it, the rest
    in `rollout`. The seed of a sample is a function of `seed`, its task's id and its number.
    """

    policy: str
    model: str = ""
    engine: AnyEngine
    runtime: Literal["local", "ray"] = "local"
    cluster: str | None = None
    rollout: RolloutSettings = RolloutSettings()
    suites: tuple[PlannedSuite, ...]
    seed: int = Field(default=0, ge=0)
    price: Price | None = None

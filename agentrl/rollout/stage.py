"""What the episodes of one host share, what one has used and how one of its phases fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agentrl.core.env import Env, StepResult
from agentrl.core.types import Failure, Message, StopReason, TrajectoryTree
from agentrl.engine.base import Engine
from agentrl.rollout.render import Rendering
from agentrl.rollout.settings import LimitsSettings, SamplingSettings

if TYPE_CHECKING:
    from agentrl.rollout.episode import LiveEpisode


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all episodes of a host share. `live` holds those that run, for the stall watchdog."""

    make_env: Callable[[], Env]
    engine: Engine
    renderer: Rendering
    sampling: SamplingSettings
    limits: LimitsSettings
    slots: asyncio.Semaphore
    retries: int = 0
    live: set[LiveEpisode] = field(default_factory=set)

    def with_sampling(self, sampling: SamplingSettings) -> Stage:
        """The same stage, slots and live episodes included, sampling otherwise."""
        return replace(self, sampling=sampling)

    def with_engine(self, engine: Engine) -> Stage:
        """The same stage, slots and live episodes included, on another engine."""
        return replace(self, engine=engine)


@dataclass(slots=True)
class Spent:
    """What a line has used since the root: a branch starts with what its parent used."""

    turns: int = 0
    generated_tokens: int = 0
    prefilled_tokens: int = 0
    tool_calls: int = 0
    reset_seconds: float = 0.0
    generate_seconds: float = 0.0
    env_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Time in all phases; waiting for a slot is no part of it."""
        return self.reset_seconds + self.generate_seconds + self.env_seconds

    def copy(self) -> Spent:
        """The same numbers, counted on apart."""
        return replace(self)


class PhaseError(Exception):
    """A phase of an episode failed: the stop reason and what happened."""

    def __init__(self, reason: StopReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DivergedError(PhaseError):
    """The same seed and actions, played again, led elsewhere."""


def stop_of(result: StepResult, limits: LimitsSettings, spent: Spent) -> StopReason | None:
    """Why a line ends with `result`, the last of what it has `spent`; None where it goes on."""
    if result.terminated:
        return StopReason.TERMINATED
    if result.truncated or spent.turns >= limits.max_turns:
        return StopReason.TRUNCATED_TURNS
    if limits.max_tool_calls is not None and spent.tool_calls > limits.max_tool_calls:
        return StopReason.TRUNCATED_BUDGET
    tokens = limits.max_generated_tokens
    if tokens is not None and spent.generated_tokens >= tokens:
        return StopReason.TRUNCATED_BUDGET
    if spent.seconds >= limits.episode_seconds:
        return StopReason.TRUNCATED_TIME
    return None


def reopen(tree: TrajectoryTree, node: int) -> None:
    """Let a branch go on from `node`, where the line that it branched from may have ended since."""
    reason = tree.leaves.pop(node, None)
    if reason is not None and not reason.is_failure:  # failures are noted already
        tree.failures.append(Failure(node, reason, "ended where a branch went on"))


def is_observation(value: object) -> bool:
    """True for a tuple of messages."""
    return isinstance(value, tuple) and all(isinstance(item, Message) for item in value)


def fault_of(result: StepResult) -> str:
    """What is wrong with a step's result, or nothing."""
    if not isinstance(result, StepResult):
        return f"returned {type(result).__name__}, not StepResult"
    if not is_observation(result.observation):
        return f"the observation is {result.observation!r:.100}, not a tuple of messages"
    if not math.isfinite(result.reward):
        return f"the reward is {result.reward}"
    for name, value in result.info.metrics.items():
        if not isinstance(value, int | float):
            return f"the metric {name!r} is {value!r:.100}, not a number"
    if result.info.rewards:
        total = sum(result.info.rewards.values())
        if abs(total - result.reward) > 1e-6 * max(1.0, abs(total)):
            return f"the reward {result.reward} is not the sum {total} of its named components"
    return ""

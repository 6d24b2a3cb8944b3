"""The environment contract: asynchronous, messages out, the policy's text in."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self, TypeAlias

from agentrl.core.types import Message, Task, ToolRecord

Forkable: TypeAlias = Literal["copy", "replay", "no"]
Observation: TypeAlias = tuple[Message, ...]

ROOT_STATE = "reset"
"""State key of the first turn: all lines of a group start from one state.

An environment that knows its state exactly gives it again where an episode is back at its start.
"""


def history_key(*parts: str) -> str:
    """The state key of a history: 32 hexadecimal digits, equal for equal `parts` in equal order.

    An environment that cannot name its state hashes what led there: the key of the turn before,
    the action and what it showed.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """What a step says beside its result.

    `rewards` are the named components of the step's reward (they sum to it). `state_key` names
    the state the *next* action acts from. `metrics` are numbers to log, never trained on.
    """

    rewards: Mapping[str, float] = field(default_factory=dict)
    tool_calls: tuple[ToolRecord, ...] = ()
    malformed_calls: int = 0
    state_key: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class StepResult(NamedTuple):
    """Gymnasium's five, with typed info."""

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: StepInfo


class Demonstration(NamedTuple):
    """An episode to imitate: the prompt, then each action with the observation it caused."""

    prompt: Observation
    turns: tuple[tuple[str, Observation], ...]


class Env(ABC):
    """One episode at a time: `reset`, then `step` until terminated or truncated.

    `forkable` says how it branches in the middle of an episode: `"copy"` (`fork` copies its
    state), `"replay"` (a fresh env is reset with the same task and seed and given the same
    actions; the observations must agree) or `"no"`. `reset` after any use equals `reset` of a
    fresh env. No work in `__init__`; the constructor's arguments are the recipe's `env` keys.

    An observation message of role `"inline"` continues the policy's own turn verbatim (as
    Search-R1's `<result>...</result>`); the other roles (system, user, tool) go through the
    chat template and open a new turn.
    """

    forkable: ClassVar[Forkable] = "no"

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of `split` (`"train"` or `"eval"`), in a fixed order. Empty if it has none."""
        return ()

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """JSON schemas of the tools, for chat templates that present them; empty: none."""
        return ()

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an action (kept in it); empty: the policy's end-of-turn token."""
        return ()

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The action an oracle plays in `turn` (0-based), or None where the env has none."""
        return None

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The action an oracle plays after it has seen `seen`, or None where there is none.

        `seen` are the texts of the observations so far, that of `reset` first, as the policy reads
        them (marks of a chat template may stand around them). An environment whose gold actions
        depend on what it showed overrides this; the default is `gold_action`.
        """
        return self.gold_action(task, len(seen) - 1)

    def answer_of(self, action: str) -> str | None:
        """The final answer that `action` gives, or None where it gives none.

        Wrappers that let the policy answer again count and compare answers by it. The default is
        the action without white space around it.
        """
        return action.strip() or None

    def demonstrations(self, *, seed: int) -> Iterator[Demonstration]:
        """An endless stream of episodes to imitate, or an empty one where the env has none."""
        return iter(())

    @abstractmethod
    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode of `task`; returns its first messages."""

    @abstractmethod
    async def step(self, action: str) -> StepResult:
        """Play one turn; `action` is the policy's text exactly as decoded."""

    async def fork(self) -> Self:
        """A copy of this env at this turn (`forkable = "copy"` only)."""
        raise TypeError(f"{type(self).__name__} has forkable = {self.forkable!r}, not 'copy'")

    async def close(self) -> None:
        """Free what the env holds; may be called twice."""
        return

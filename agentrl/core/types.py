"""The records of a rollout: messages, turns, trees of turns, groups and stop reasons.

Axis letters: A tokens of an action, O tokens of an observation, T tokens of a path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import ContractError

Int32: TypeAlias = npt.NDArray[np.int32]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
EntropyKind: TypeAlias = Literal["exact", "top_k", "none"]

ROOT = -1
"""Parent index of a turn that continues the prompt itself."""


class StopReason(StrEnum):
    """Why a trajectory ended. Only `TERMINATED` is an end state of the environment."""

    TERMINATED = "terminated"
    TRUNCATED_TURNS = "truncated_turns"
    TRUNCATED_TOKENS = "truncated_tokens"
    TRUNCATED_TIME = "truncated_time"
    TRUNCATED_BUDGET = "truncated_budget"
    ENV_ERROR = "env_error"
    ENGINE_ERROR = "engine_error"
    CANCELLED = "cancelled"

    @property
    def is_failure(self) -> bool:
        """True for infrastructure failures: never trained on, never counted as reward 0."""
        return self in (StopReason.ENV_ERROR, StopReason.ENGINE_ERROR, StopReason.CANCELLED)

    @property
    def is_truncation(self) -> bool:
        """True where a limit ended the episode."""
        return self.value.startswith("truncated")


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a message, by content and never by path."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What one party said. `role` is system, user, assistant or tool."""

    role: str
    parts: tuple[Text | Image, ...]

    @classmethod
    def of(cls, role: str, text: str) -> Message:
        """A message of one piece of text."""
        return cls(role, (Text(text),))

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Task:
    """One problem instance. `data` is plain data: it travels between processes and to disk."""

    id: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the policy asked for, as parsed from its text."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """A call that was made: what was asked, whether it worked and how long it took."""

    name: str
    arguments: Mapping[str, Any]
    ok: bool
    seconds: float


def _no_int() -> Int32:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action and the observation that it caused; holds only the tokens that it adds.

    `logprobs` and `entropies` are the behaviour policy's, aligned with `action_ids` (A,), in nats.
    `observation_ids` (O,) are what the environment appended afterwards, never trained.
    `reward` is the sum of `rewards`, its named components; `metrics` are what the environment
    measured beside them, never trained on. `state_key` is equal for turns that acted from the
    same state. With `goes_on` it is a segment of an action that is not complete, and the turns that
    continue it have the rest: the environment has not seen it yet, so nothing was observed or paid
    (`agentrl.rollout.segments` joins them). `prefilled_tokens` counts prompt tokens the engine had
    to compute (not found in its prefix cache). `sampled_tokens` is the server's own count of what
    it sampled, where `action_ids` are no tokens (`agentrl.rollout.transcript`). `policy_version` is
    that of the weights that sampled the first token; where new weights came in the middle,
    `versions` (A,) has that of each token (never falling) and is None otherwise.
    """

    action_ids: Int32
    logprobs: Float32
    entropies: Float32
    observation_ids: Int32 = field(default_factory=_no_int)
    policy_version: int = 0
    versions: Int32 | None = None
    entropy_kind: EntropyKind = "exact"
    reward: float = 0.0
    rewards: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    state_key: str = ""
    goes_on: bool = False
    tool_calls: tuple[ToolRecord, ...] = ()
    malformed_calls: int = 0
    prefilled_tokens: int = 0
    sampled_tokens: int | None = None
    generate_seconds: float = 0.0
    env_seconds: float = 0.0

    def __post_init__(self) -> None:
        sizes = {len(self.action_ids), len(self.logprobs), len(self.entropies)}
        if len(sizes) != 1:
            raise ContractError(
                "a turn's per-token fields must have one length, got "
                f"action_ids={len(self.action_ids)}, logprobs={len(self.logprobs)}, "
                f"entropies={len(self.entropies)}"
            )
        if self.versions is not None and len(self.versions) != len(self.action_ids):
            raise ContractError(
                f"a turn of {len(self.action_ids)} tokens has {len(self.versions)} versions; give "
                "one for each token, or None where policy_version made them all"
            )

    @property
    def token_versions(self) -> Int32:
        """Version of the weights that sampled each token (A,)."""
        if self.versions is not None:
            return self.versions
        return np.full(len(self.action_ids), self.policy_version, np.int32)

    @property
    def generated_tokens(self) -> int:
        """Tokens that the policy sampled: the server's own count, where it counts."""
        return len(self.action_ids) if self.sampled_tokens is None else self.sampled_tokens


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that ended in an infrastructure failure, from the node it was to continue."""

    parent: int
    stop_reason: StopReason
    message: str


class TrajectoryTree:
    """One prompt and every turn sampled after it, by parent index; a chain is a tree with no fork.

    A leaf has a stop reason and no child; the path from the root to it is a trajectory. Shared
    turns are stored once. `failures` are attempts that were lost to infrastructure and retried.
    """

    __slots__ = (
        "failures",
        "group_id",
        "leaves",
        "parents",
        "prompt_ids",
        "seed",
        "task_id",
        "turns",
    )

    def __init__(
        self, task_id: str, prompt_ids: Sequence[int] | Int32, *, group_id: str = "", seed: int = 0
    ) -> None:
        self.task_id = task_id
        self.group_id = group_id or task_id
        self.seed = seed
        self.prompt_ids: Int32 = np.asarray(prompt_ids, np.int32)
        self.parents: list[int] = []
        self.turns: list[Turn] = []
        self.leaves: dict[int, StopReason] = {}
        self.failures: list[Failure] = []

    def add(self, parent: int, turn: Turn) -> int:
        """Append `turn` as a child of node `parent` (or `ROOT`); returns its index."""
        node = len(self.turns)
        if not ROOT <= parent < node:
            raise ContractError(f"parent {parent} is not a node of a tree of {node} turns")
        if parent in self.leaves:
            raise ContractError(f"node {parent} is a leaf ({self.leaves[parent]}), not a parent")
        self.parents.append(parent)
        self.turns.append(turn)
        return node

    def end(self, node: int, stop_reason: StopReason) -> None:
        """Make `node` a leaf."""
        if node in self.leaves or node in self.parents:
            raise ContractError(f"node {node} already ended or has a child")
        self.leaves[node] = stop_reason

    def path(self, node: int) -> tuple[int, ...]:
        """Node indices from the root's child down to `node`."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return tuple(reversed(nodes))

    def context_ids(self, node: int) -> Int32:
        """All tokens up to and including `node`'s observation (T,): the next turn's prompt."""
        pieces = [self.prompt_ids]
        for index in self.path(node):
            pieces += [self.turns[index].action_ids, self.turns[index].observation_ids]
        return np.concatenate(pieces)

    def trajectories(self) -> Iterator[Trajectory]:
        """A view of every leaf's trajectory, in node order."""
        for node in sorted(self.leaves):
            yield Trajectory(self, self.path(node), self.leaves[node])


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A root-to-leaf path: a view, never a copy."""

    tree: TrajectoryTree
    path: tuple[int, ...]
    stop_reason: StopReason

    @property
    def turns(self) -> list[Turn]:
        """The path's turns, first to last."""
        return [self.tree.turns[node] for node in self.path]

    @property
    def episode_return(self) -> float:
        """Sum of the turns' rewards."""
        return float(sum(turn.reward for turn in self.turns))


@dataclass(frozen=True, slots=True)
class Group:
    """The trees of one task in one iteration: the unit inside which values are compared."""

    id: str
    task_id: str
    trees: tuple[TrajectoryTree, ...]

    def trajectories(self) -> list[Trajectory]:
        """All trajectories of all trees, in order."""
        return [trajectory for tree in self.trees for trajectory in tree.trajectories()]

"""The turns of many trees as columns: credit over a million turns is array work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Float32, Float64, Group, Int32

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TurnTable:
    """Turns of all trees of some groups, one row each; K turns, L leaves, N action tokens.

    A parent's row always stands before its children's. `parent` is a row of this table or `ROOT`.
    Leaves that are infrastructure failures are left out of `leaf_turn`: they are in no statistic
    and train nothing. `score` is what filters judge by: the reward component that `of` was asked
    for, which may be less than the reward. The columns over tokens are there where `of` was asked
    for them; turn k's tokens are those from `token_starts[k]` to `token_starts[k + 1]`. A turn's
    `reward` is paid at its last token, but for the `token_rewards` in it, each paid at its own.
    """

    group: Int64  # (K,) index into the groups
    tree: Int64  # (K,) index over all trees
    parent: Int64  # (K,)
    depth: Int64  # (K,) 0 for a root's child
    reward: Float64  # (K,)
    tokens: Int64  # (K,) action tokens
    state: Int64  # (K,) equal for turns of a group that acted from the same state; -1: unknown
    leaf_turn: Int64  # (L,) row of each leaf, in order
    leaf_group: Int64  # (L,)
    leaf_truncated: Bool  # (L,)
    n_groups: int
    score: Float64 | None = None  # (K,) one component of the reward; None: the reward itself
    logprobs: Float32 | None = None  # (N,) behaviour log-probabilities of the action tokens
    entropies: Float32 | None = None  # (N,) entropies of the behaviour policy at them
    seen: tuple[Int32, ...] | None = None  # (K,) tokens of the observation that a turn acted on
    values: Float64 | None = None  # (N,) a critic's, of the states before the action tokens
    bootstrap: Float64 | None = None  # (L,) a critic's, of truncated leaves' last states; else 0
    logit_norms: Float64 | None = None  # (N,) see `PolicyLearner.logit_norms`
    token_rewards: Float64 | None = None  # (N,) what of `reward` is paid at each token; None: 0

    @property
    def token_starts(self) -> Int64:
        """Index (K+1,) of each turn's first action token among all of them; the last is N."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.tokens)])

    @classmethod
    def of(
        cls, groups: Sequence[Group], *, with_tokens: bool = False, score: str = "reward"
    ) -> TurnTable:
        """Columns of `groups`, in order of group, tree and node.

        `with_tokens` fills those over tokens too; an entropy that the engine did not give is NaN.
        It also says what each turn `seen` had last: the observation before it, or the prompt.
        `score` names the reward component of that column, "reward" for the sum of all; a turn
        that was not paid it has 0.
        """
        group: list[int] = []
        tree: list[int] = []
        parent: list[int] = []
        depth: list[int] = []
        reward: list[float] = []
        tokens: list[int] = []
        state: list[int] = []
        known: dict[tuple[int, str], int] = {}
        leaf_turn: list[int] = []
        leaf_group: list[int] = []
        leaf_truncated: list[bool] = []
        n_trees = 0
        for g, item in enumerate(groups):
            for one in item.trees:
                base = len(parent)
                for node, (above, turn) in enumerate(zip(one.parents, one.turns, strict=True)):
                    group.append(g)
                    tree.append(n_trees)
                    parent.append(ROOT if above == ROOT else base + above)
                    depth.append(0 if above == ROOT else depth[base + above] + 1)
                    reward.append(turn.reward)
                    tokens.append(len(turn.action_ids))
                    key = (g, turn.state_key)
                    state.append(known.setdefault(key, len(known)) if turn.state_key else -1)
                    reason = one.leaves.get(node)
                    if reason is not None and not reason.is_failure:
                        leaf_turn.append(base + node)
                        leaf_group.append(g)
                        leaf_truncated.append(reason.is_truncation)
                n_trees += 1
        return cls(
            group=np.asarray(group, np.int64),
            tree=np.asarray(tree, np.int64),
            parent=np.asarray(parent, np.int64),
            depth=np.asarray(depth, np.int64),
            reward=np.asarray(reward, np.float64),
            tokens=np.asarray(tokens, np.int64),
            state=np.asarray(state, np.int64),
            leaf_turn=np.asarray(leaf_turn, np.int64),
            leaf_group=np.asarray(leaf_group, np.int64),
            leaf_truncated=np.asarray(leaf_truncated, np.bool_),
            n_groups=len(groups),
            score=None if score == "reward" else _component(groups, score),
            logprobs=_over_tokens(groups, "logprobs") if with_tokens else None,
            entropies=_over_tokens(groups, "entropies") if with_tokens else None,
            seen=_seen(groups) if with_tokens else None,
        )


def _component(groups: Sequence[Group], name: str) -> Float64:
    """What each turn (K,) was paid of one component of the reward."""
    paid = [t.rewards.get(name, 0.0) for g in groups for tree in g.trees for t in tree.turns]
    return np.asarray(paid, np.float64)


def _seen(groups: Sequence[Group]) -> tuple[Int32, ...]:
    """What each turn (K,) acted on: the observation of the turn before, or its tree's prompt."""
    return tuple(
        tree.prompt_ids if above == ROOT else tree.turns[above].observation_ids
        for group in groups
        for tree in group.trees
        for above in tree.parents
    )


def _over_tokens(groups: Sequence[Group], name: Literal["logprobs", "entropies"]) -> Float32:
    """A column (N,) of all turns' action tokens; NaN for entropies that are not known."""
    parts = [np.zeros(0, np.float32)]
    for group in groups:
        for tree in group.trees:
            for turn in tree.turns:
                known = name == "logprobs" or turn.entropy_kind != "none"
                column = getattr(turn, name)
                parts.append(column if known else np.full_like(column, np.nan))
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Credit:
    """What each turn is worth, as the clipped loss needs it (DESIGN.md 4, Learner).

    Over the trajectories that train a turn, each with its row weight w: `positive` is the sum of
    w * max(A, 0), `negative` the sum of w * min(A, 0), `weight` the sum of w. A turn with weight
    0 is not trained, which is not the same as an advantage of 0. With `unit` "token" the columns
    are over the N action tokens instead of the K turns, for methods that tell tokens apart.

    With `once` a turn counts once, however many trajectories share it: `weight` is one of theirs,
    and the loss is divided by the tokens that are trained and not by those of all trajectories.
    `metrics` are what the method says of its statistics.
    """

    positive: Float64  # (K,) or (N,)
    negative: Float64
    weight: Float64
    unit: Literal["turn", "token"] = "turn"
    once: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)

    def scaled(self, table: TurnTable, factors: Float64) -> Credit:
        """The same with all three columns multiplied by the `factors` (K,) of the turns."""
        each = np.repeat(factors, table.tokens) if self.unit == "token" else factors
        self._check(len(each))
        positive, negative, weight = (one * each for one in self._columns())
        return replace(self, positive=positive, negative=negative, weight=weight)

    def at_tokens(self, table: TurnTable) -> Credit:
        """The same, over the N action tokens of `table`: a turn's credit is that of each token."""
        if self.unit == "token":
            return self
        self._check(len(table.tokens))
        positive, negative, weight = (np.repeat(one, table.tokens) for one in self._columns())
        return Credit(positive, negative, weight, "token")

    def at_turns(self, table: TurnTable) -> Credit:
        """The same, over the K turns: the mean over a turn's tokens; 0 for a turn without any."""
        if self.unit == "turn":
            return self
        self._check(int(table.tokens.sum()))
        turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
        count = np.maximum(table.tokens, 1)
        positive, negative, weight = (
            np.bincount(turn, one, len(count)) / count for one in self._columns()
        )
        return Credit(positive, negative, weight)

    def _columns(self) -> tuple[Float64, Float64, Float64]:
        return self.positive, self.negative, self.weight

    def _check(self, expected: int) -> None:
        if len(self.weight) != expected:
            raise ContractError(
                f"credit of {len(self.weight)} {self.unit}s is not of a table of {expected}"
            )

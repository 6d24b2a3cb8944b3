"""Advantages against a critic's values: what the forms of GAE share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.groups import EQUAL, Grain, LeafAdvantages, against_group
from agentrl.credit.steps import Steps, add_copies
from agentrl.credit.subtree import Levels, trajectory_sums
from agentrl.credit.table import Bool, Credit, Int64, TurnTable


class ValueTargets(NamedTuple):
    """What a critic is to learn of N action tokens: the three sums of a squared error over leaves.

    Token t's state has one value V and, for each trajectory i through it, a target R_i with weight
    w_i. With `weight` W = sum w_i, `target` R = sum w_i R_i / W and `spread` = sum w_i (R_i - R)^2

        sum_i w_i (V - R_i)^2 = W (V - R)^2 + spread

    for every V, so loss and gradient are exactly those of one copy of the token for each
    trajectory. A token with weight 0 teaches nothing.
    """

    weight: Float64  # (N,)
    target: Float64
    spread: Float64


class Recursion(NamedTuple):
    """The recursion of a method inside of turns; N tokens, K turns.

    With X what a trajectory has still to come after a turn, as seen from its last token, the
    advantage of token t of that turn is `within`_t + `decay`_t X. The turn before sees
    `gamma` (`before` + V + `lam` A) of the token `head`, `before` being what is paid in the turn
    before its head. Values are learned at `supervised` tokens.
    """

    within: Float64  # (N,)
    decay: Float64  # (N,)
    head: Int64  # (K,) means nothing for a turn without tokens
    gamma: float
    lam: float
    supervised: Bool  # (N,)
    before: Float64  # (K,)


class _Copies(NamedTuple):
    """Action tokens, shared ones once for each of their trajectories: whose, which, its A."""

    leaf: Int64
    token: Int64
    advantage: Float64


class ValueBaseline(Settings):
    """Credit against a critic's values (`learner.critic`); a method gives its `recursion`.

    Every trajectory has a recursion of its own along its path, over action tokens only, and a
    shared token carries the advantages of all its trajectories apart: all as if each had a copy.
    The reward of a turn stands at its last action token, but for what a penalty charges at single
    tokens (`TurnTable.token_rewards`); that of a turn without any, at the last one before it on the
    path. The cost is linear in the tokens of the trajectories laid out flat, which is what a shared
    token's several advantages are, and never more.

    `whiten` subtracts the mean of the advantages and divides by sqrt(variance + 1e-8), over the
    iteration's trained action tokens (variance unbiased, as in verl and TRL); advantages that are
    all equal become exactly 0. A group of one is as good as any. `truncated` says what follows a
    trajectory that a limit ended: "bootstrap" the value of its last state; "terminal" nothing, for
    limits that are part of the task; "mask" leaves it out of training.
    """

    whiten: bool = True
    truncated: Literal["bootstrap", "terminal", "mask"] = "bootstrap"

    @property
    def grain(self) -> Grain:
        """Copies of a token have their own advantages."""
        return "copy"

    @property
    def needs_tokens(self) -> bool:
        """Whether the table must have its columns over tokens (`TurnTable.of`)."""
        return False

    @property
    def needs_group(self) -> bool:
        """Whether a trajectory says nothing without others of its task beside it."""
        return False

    def recursion(self, table: TurnTable, values: Float64) -> Recursion:
        """The method's terms, given the values (N,) of the states before the action tokens."""
        raise NotImplementedError

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Which leaves train, and A of their first turn that has tokens, not whitened.

        Every trajectory of a finite return trains, unless masked. Raises ContractError where the
        table has no values.
        """
        returns = trajectory_sums(table, levels or Levels.of(table), table.reward)
        scored = np.isfinite(returns)
        trains = scored & ~table.leaf_truncated if self.truncated == "mask" else scored
        found = against_group(returns, table.leaf_group, scored, table.n_groups, scale="none")
        advantage = _Paths.of(self, table, trains).first_advantages()
        return LeafAdvantages(
            advantage=np.where(trains, advantage, 0.0),
            trains=trains,
            compared=found.size,
            groups_dropped=int(np.count_nonzero(found.size == 0)),
            groups_equal=int(np.count_nonzero(found.equal & (found.size > 1))),
            leaves_unscored=int(np.count_nonzero(~scored)),
        )

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all N action tokens; `row_weights` (L,) as from `aggregate.row_weights`."""
        trains = (leaves or self.compare(table, levels)).trains
        paths = _Paths.of(self, table, trains)
        center, scale = 0.0, 1.0
        if self.whiten:
            center, scale = moments(one.advantage for one in paths.copies())
        sums = np.zeros((3, int(table.tokens.sum())))
        for leaf, token, advantage in paths.copies():
            w = row_weights[leaf]
            add_copies(sums, token, w * (advantage - center) * scale, w)
        positive, negative, total = sums
        return Credit(positive, negative, total, unit="token")

    def targets(
        self,
        table: TurnTable,
        row_weights: Float64,
        leaves: LeafAdvantages,
    ) -> ValueTargets:
        """What the critic learns: R = A + V of each trajectory, A before whitening."""
        paths = _Paths.of(self, table, leaves.trains)
        weight, first, second = np.zeros((3, int(table.tokens.sum())))
        for leaf, token, advantage in paths.copies():
            w = row_weights[leaf] * paths.terms.supervised[token]
            np.add.at(weight, token, w)
            np.add.at(first, token, w * advantage)
            np.add.at(second, token, w * advantage**2)
        known = weight > 0
        mean = first / np.where(known, weight, 1.0)
        return ValueTargets(
            weight=weight,
            target=np.where(known, _values(table) + mean, 0.0),
            spread=np.maximum(second - mean * first, 0.0),
        )


@dataclass(frozen=True, slots=True)
class _Paths:
    """The recursions of all trajectories: S steps, each with what comes after it."""

    table: TurnTable
    terms: Recursion
    steps: Steps
    after: Float64  # (S,) X of each step
    trains: Bool  # (L,)

    @classmethod
    def of(cls, method: ValueBaseline, table: TurnTable, trains: Bool) -> _Paths:
        """Every trajectory's X, a layer of steps at a time from the leaves up."""
        values, steps = _values(table), Steps.of(table)
        terms = method.recursion(table, values)
        some = table.tokens > 0
        # X of the turn before is `offset` + `factor` X of this one; a turn without tokens passes on
        # what follows it together with its own reward.
        offset, factor = table.reward.copy(), np.ones(len(table.tokens))
        head = terms.head[some]
        seen = terms.before[some] + values[head] + terms.lam * terms.within[head]
        offset[some] = terms.gamma * seen
        factor[some] = terms.gamma * terms.lam * terms.decay[head]
        after = np.zeros(len(steps.leaf))
        last = _last_values(table) if method.truncated == "bootstrap" else np.zeros(len(trains))
        after[: len(last)] = terms.gamma * last
        for start, end in pairwise(steps.bounds[1:]):
            below = steps.after[start:end]
            turn = steps.turn[below]
            after[start:end] = offset[turn] + factor[turn] * after[below]
        return cls(table, terms, steps, after, trains)

    def copies(self) -> Iterator[_Copies]:
        """The tokens of the trajectories that train, a layer of steps at a time."""
        terms = self.terms
        for step, token in self.steps.copies(self.table, self.trains):
            advantage = terms.within[token] + terms.decay[token] * self.after[step]
            yield _Copies(self.steps.leaf[step], token, advantage)

    def first_advantages(self) -> Float64:
        """A (L,) at the head of each trajectory's first turn that has tokens; 0 without one."""
        found = np.zeros(len(self.trains))
        some = self.table.tokens[self.steps.turn] > 0
        for start, end in pairwise(self.steps.bounds):
            at = start + np.flatnonzero(some[start:end])
            head = self.terms.head[self.steps.turn[at]]
            # Later layers are nearer to the root and replace what was found below.
            found[self.steps.leaf[at]] = (
                self.terms.within[head] + self.terms.decay[head] * self.after[at]
            )
        return found


class Moments(NamedTuple):
    """Mean and 1 / sqrt(variance + 1e-8) of some values; the scale is 0 where all are equal."""

    center: float
    scale: float


def moments(parts: Iterable[Float64]) -> Moments:
    """Of all values of `parts` together, ddof = 1; equal are those equal but for rounding."""
    count, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    for values in parts:
        if not len(values):
            continue
        size, own = len(values), float(values.mean())
        apart, count = own - mean, count + size
        squares += float(((values - own) ** 2).sum()) + apart**2 * size * (count - size) / count
        mean += apart * size / count
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not count or high - low <= EQUAL * max(1.0, abs(mean)):
        return Moments(mean, 0.0)
    return Moments(mean, float(1.0 / np.sqrt(squares / (count - 1) + 1e-8)))


def from_turn_end(table: TurnTable) -> Int64:
    """How many tokens of its turn follow each action token (N,)."""
    ends = np.repeat(table.token_starts[1:], table.tokens)
    return ends - 1 - np.arange(len(ends), dtype=np.int64)


def last_tokens(table: TurnTable) -> tuple[Int64, Int64]:
    """The turns that have tokens, and the last one of each."""
    some = np.flatnonzero(table.tokens)
    return some, table.token_starts[some + 1] - 1


def rewards_of_tokens(table: TurnTable) -> Float64:
    """What each action token (N,) is paid: a turn's reward at its last, but for `token_rewards`."""
    turns, last = last_tokens(table)
    rest = table.reward[turns]
    paid = np.zeros(int(table.tokens.sum()))
    if table.token_rewards is not None:
        paid += table.token_rewards
        rest = rest - np.add.reduceat(paid, table.token_starts[turns]) if len(turns) else rest
    paid[last] += rest
    return paid


def _values(table: TurnTable) -> Float64:
    if table.values is None:
        raise ContractError(
            "this credit is against a critic's values and the table has none: set learner.critic, "
            "or choose a credit that compares trajectories (grpo, for example)"
        )
    return table.values


def _last_values(table: TurnTable) -> Float64:
    """Values (L,) of what follows each trajectory: 0 but for those that a limit ended."""
    if not table.leaf_truncated.any():
        return np.zeros(len(table.leaf_turn))
    if table.bootstrap is None:
        raise ContractError(
            "trajectories were truncated and the table has no values of their last states "
            "(TurnTable.bootstrap); credit.truncated 'terminal' or 'mask' needs none"
        )
    return np.where(table.leaf_truncated, table.bootstrap, 0.0)

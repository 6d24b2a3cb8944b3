"""Losses whose ratio is of a turn or of a trajectory: their exact gradient to every token.

Such a loss takes two passes over an iteration's rows. The first gives the tokens' log-probabilities
under the policy; here, in float64, they become the loss and its gradient G with respect to each
log-probability, on the tree: path sums give a trajectory's log-ratio, subtree sums bring what all
trajectories through a turn say of it back to the turn. The second pass is an update whose terms are
linear, -G log p, so that any tree, any cut of rows and any number of ranks train the same loss.

K turns, L leaves, N action tokens; all are those of one step's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import NamedTuple

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Float64
from agentrl.credit.groups import Grain
from agentrl.credit.grpo import soft_credit
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums, trajectory_sums
from agentrl.credit.table import Bool, Credit, Int64, TurnTable
from agentrl.learner.loss_settings import (
    GvpoLoss,
    LogclipLoss,
    LossSettings,
    PpoLoss,
    VespoLoss,
)

LOG_RATIO_BOUND = 20.0
"""Logarithms of ratios are clamped to ± this before exp; beyond it the gradient is zero."""
VESPO_SHAPE = ((2.0, 3.0), (3.0, 2.0))
"""(k, lambda) of gains and of losses, as released."""


class Leveled(NamedTuple):
    """The loss before its division by the denominator, G (N,) for each token, and metrics.

    `gain` is minus the derivative of `loss` with respect to the token's log-probability: what the
    second pass takes as credit.
    """

    loss: float
    gain: Float64
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluated:
    """A step's turns, their credit and its tokens' log-probabilities.

    `advantage` and `weights` (L,) are those of the trajectories, `credit` what method and
    corrections made of them. `logprobs` and `behavior` (N,) are NaN where nothing was evaluated;
    `denominator` is the loss's; `grain` says what has one advantage (see `CreditMethod`).
    """

    # Without slots: what several losses need is computed once, where it is asked for.

    table: TurnTable
    credit: Credit
    advantage: Float64
    weights: Float64
    logprobs: Float64
    behavior: Float64
    denominator: float = 1.0
    grain: Grain = "trajectory"

    @cached_property
    def levels(self) -> Levels:
        """The table's."""
        return Levels.of(self.table)

    @cached_property
    def turn(self) -> Int64:
        """The turn (N,) of each token."""
        return np.repeat(np.arange(len(self.table.tokens)), self.table.tokens)

    @cached_property
    def tokens(self) -> Credit:
        """The credit, over tokens."""
        return self.credit.at_tokens(self.table)

    @cached_property
    def known(self) -> Bool:
        """Which tokens (N,) were evaluated."""
        known: Bool = np.isfinite(self.logprobs) & np.isfinite(self.behavior)
        return known

    @cached_property
    def log_ratio(self) -> Float64:
        """Log (policy / behaviour) (N,), 0 where it is not known."""
        return np.where(self.known, self.logprobs - self.behavior, 0.0)

    @cached_property
    def lengths(self) -> Float64:
        """Action tokens (L,) of each trajectory, at least 1."""
        return np.maximum(self.along(np.ones(len(self.turn))), 1.0)

    @cached_property
    def gain(self) -> Float64:
        """W A (L,) of each trajectory."""
        return self.weights * self.advantage

    @cached_property
    def factors(self) -> Float64:
        """What corrections make of each token's element (N,), 1 where there is none."""
        plain = soft_credit(self.table, self.levels, self.advantage, self.weights)
        sizes = (plain.positive - plain.negative)[self.turn]
        size = self.tokens.positive - self.tokens.negative
        return np.divide(size, sizes, out=np.ones_like(size), where=sizes > 0)

    def along(self, values: Float64) -> Float64:
        """Sums (L,) of `values` (N,) over each trajectory's tokens."""
        return trajectory_sums(self.table, self.levels, self.by_turn(values))

    def by_turn(self, values: Float64) -> Float64:
        """Sums (K,) of `values` (N,) over each turn's tokens."""
        return np.bincount(self.turn, values, len(self.table.tokens)).astype(np.float64)

    def through(self, values: Float64) -> Float64:
        """Sums (N,) of `values` (L,) over the trajectories through each token's turn."""
        return subtree_sums(self.levels, at_leaves(self.table, values))[self.turn]

    def require(self, trajectories: Bool) -> None:
        """Raise where some token of these trajectories (L,) was not evaluated."""
        missing = trajectories & (self.along((~self.known).astype(np.float64)) > 0)
        if missing.any():
            raise ContractError(
                f"{missing.sum()} of {len(missing)} trajectories have action tokens without a "
                "log-probability, and their ratio is over all of them: the first is trajectory "
                f"{int(np.argmax(missing))} of the step. Pack every turn of what trains"
            )


@singledispatch
def level_loss(settings: LossSettings, step: Evaluated) -> Leveled:
    """The loss that `settings` names, whose class has the formula, on the tree of `step`.

    Raises ContractError where the loss needs a token that was not evaluated.
    """
    raise NotImplementedError(f"{type(settings).__name__} is no loss of two passes")


def needed_turns(table: TurnTable, credit: Credit, weights: Float64) -> Bool:
    """Turns (K,) on the paths of trajectories of which some token has credit.

    They are what a ratio may be over, given the credit and the trajectories' `weights` (L,).
    """
    levels = Levels.of(table)
    found = credit.at_tokens(table)
    turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
    moved = ((found.positive != 0) | (found.negative != 0)).astype(np.float64)
    says = np.bincount(turn, moved, len(table.tokens)).astype(np.float64)
    counted = (weights != 0) & (trajectory_sums(table, levels, says) > 0)
    return subtree_sums(levels, at_leaves(table, counted.astype(np.float64))) > 0


@level_loss.register
def _ppo(settings: PpoLoss, step: Evaluated) -> Leveled:
    if settings.level == "turn":
        return _ppo_of_turns(settings, step)
    if settings.level == "sequence" or step.grain == "trajectory":
        return _ppo_of_trajectories(settings, step)
    return _ppo_of_sequence_tokens(settings, step)


class _Sides(NamedTuple):
    """PPO's element for an advantage of +1 (`up`) and of -1 (`down`) at given log-ratios.

    The element is minus the value for +1 and the value for -1; the slopes are those of the values
    with respect to the log-ratio.
    """

    up: Float64
    up_slope: Float64
    down: Float64
    down_slope: Float64
    low: Bool
    high: Bool
    dual: Bool

    @classmethod
    def of(cls, log_ratio: Float64, settings: PpoLoss) -> _Sides:
        """All of it, at any number of log-ratios."""
        bounded = np.clip(log_ratio, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)
        ratio = np.exp(bounded)
        slope = np.where(bounded == log_ratio, ratio, 0.0)
        floor, ceiling = 1.0 - settings.clip_low, 1.0 + settings.clip_high
        cap = settings.dual_clip or np.inf
        low, high, dual = ratio < floor, ratio > ceiling, ratio > cap
        return cls(
            up=np.minimum(ratio, ceiling),
            up_slope=np.where(high, ceiling if settings.entropy_balanced else 0.0, slope),
            down=np.clip(ratio, floor, cap),
            down_slope=np.where(low | dual, 0.0, slope),
            low=low,
            high=high,
            dual=dual,
        )


def _ppo_of_turns(settings: PpoLoss, step: Evaluated) -> Leveled:
    """The turn's ratio for each of its tokens; the gradient is the token's own."""
    tokens = step.tokens
    acts = (tokens.positive != 0) | (tokens.negative != 0)
    broken = step.by_turn((~step.known).astype(np.float64))[step.turn] > 0
    if (acts & broken).any():
        raise ContractError(
            f"a token of turn {int(step.turn[np.argmax(acts & broken)])} of the step has credit, "
            "and its turn has tokens without a log-probability, over all of which its ratio is. "
            "Pack every token of what trains"
        )
    mean = step.by_turn(step.log_ratio) / np.maximum(step.table.tokens, 1)
    sides = _Sides.of(mean[step.turn], settings)
    rises, falls = tokens.positive > 0, tokens.negative < 0
    return Leveled(
        loss=-float(tokens.positive @ sides.up + tokens.negative @ sides.down),
        gain=tokens.positive * sides.up_slope + tokens.negative * sides.down_slope,
        metrics=_clip_metrics(
            step.known.astype(np.float64),
            falls & sides.low,
            rises & sides.high,
            falls & sides.dual,
        ),
    )


def _ppo_of_trajectories(settings: PpoLoss, step: Evaluated) -> Leveled:
    """The trajectory's ratio, with one advantage for it."""
    counted = step.along(step.factors)
    step.require((step.gain != 0) & (counted != 0))
    sides = _Sides.of(step.along(step.log_ratio) / step.lengths, settings)
    rises, falls = step.gain > 0, step.gain < 0
    value = np.where(rises, sides.up, sides.down)
    slope = np.where(rises, sides.up_slope, sides.down_slope)
    if settings.level == "sequence":
        gain = step.through(step.gain * slope * counted / step.lengths)
    else:
        gain = step.factors * step.through(step.gain * slope)
    copies = np.where(step.weights != 0, step.lengths, 0.0)
    return Leveled(
        loss=-float((step.gain * value) @ counted),
        gain=gain,
        metrics=_clip_metrics(
            copies,
            copies * (falls & sides.low),
            copies * (rises & sides.high),
            copies * (falls & sides.dual),
        ),
    )


def _ppo_of_sequence_tokens(settings: PpoLoss, step: Evaluated) -> Leveled:
    """The trajectory's ratio, with advantages of the turns.

    Where a turn has one advantage, its trajectories' ratios weigh by w in it; where its copies have
    one each, it can be told apart only while a single trajectory passes through.
    """
    tokens = step.tokens
    trains = step.weights != 0
    acts = (tokens.positive != 0) | (tokens.negative != 0)
    if step.grain == "copy" and (acts & (step.through(trains.astype(np.float64)) > 1)).any():
        raise ContractError(
            "level 'sequence_token' cannot tell apart the advantages that several trajectories "
            "give to a turn that they share. Use level 'turn' or 'token', or a sampler that does "
            "not branch"
        )
    step.require(trains & (step.along(acts.astype(np.float64)) > 0))
    sides = _Sides.of(step.along(step.log_ratio) / step.lengths, settings)
    total = step.through(step.weights)
    share = np.divide(1.0, total, out=np.zeros_like(total), where=total != 0)
    up, up_slope, down, down_slope = (
        step.through(step.weights * one) * share
        for one in (sides.up, sides.up_slope, sides.down, sides.down_slope)
    )
    low, high, dual = (
        step.through(step.weights * one) * share for one in (sides.low, sides.high, sides.dual)
    )
    rises, falls = tokens.positive > 0, tokens.negative < 0
    return Leveled(
        loss=-float(tokens.positive @ up + tokens.negative @ down),
        gain=tokens.positive * up_slope + tokens.negative * down_slope,
        metrics=_clip_metrics(
            step.known.astype(np.float64), falls * low, rises * high, falls * dual
        ),
    )


@level_loss.register
def _logclip(settings: LogclipLoss, step: Evaluated) -> Leveled:
    counted = step.along(step.factors)
    step.require((step.gain != 0) & (counted != 0))
    rises, falls = step.gain > 0, step.gain < 0
    low, high = step.log_ratio < -settings.clip_low, step.log_ratio > settings.clip_high
    upward = np.minimum(step.log_ratio, settings.clip_high)
    downward = np.maximum(step.log_ratio, -settings.clip_low)
    mean = np.where(rises, step.along(upward), step.along(downward)) / step.lengths
    bounded = np.clip(mean, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    worth = step.gain * np.exp(bounded) * counted
    each = np.where(bounded == mean, worth / step.lengths, 0.0)
    gain = np.where(high, 0.0, step.through(np.where(rises, each, 0.0)))
    gain += np.where(low, 0.0, step.through(np.where(falls, each, 0.0)))
    copies, up, down = (
        step.through(one.astype(np.float64)) for one in (step.weights != 0, rises, falls)
    )
    return Leveled(-float(worth.sum()), gain, _clip_metrics(copies, down * low, up * high))


@level_loss.register
def _vespo(settings: VespoLoss, step: Evaluated) -> Leveled:
    step.require((step.gain != 0) & (step.along(step.factors) != 0))
    log_product = np.clip(step.along(step.log_ratio), -LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    up, down = (np.exp(b + k * log_product - b * np.exp(log_product)) for k, b in VESPO_SHAPE)
    gain = step.factors * step.through(step.gain * np.where(step.gain > 0, up, down))
    return Leveled(-float(gain @ np.where(step.known, step.logprobs, 0.0)), gain, {})


@level_loss.register
def _gvpo(settings: GvpoLoss, step: Evaluated) -> Leveled:
    trains = step.weights != 0
    step.require(trains)
    group, n_groups = step.table.leaf_group, step.table.n_groups
    size = np.bincount(group[trains], minlength=n_groups).astype(np.float64)
    counted = trains & (size[group] > 1)
    found = np.where(counted, settings.beta * step.along(step.log_ratio) - step.advantage, 0.0)
    mean = np.bincount(group, found, n_groups) / np.maximum(size, 1.0)
    apart = np.where(counted, found - mean[group], 0.0)
    share = step.denominator / max(1.0, float((size > 1).sum()))
    pull = share * apart / np.maximum(size[group] - 1.0, 1.0)
    return Leveled(float(pull @ apart) / 2, -settings.beta * step.through(pull), {})


def _clip_metrics(
    tokens: Float64, low: Float64 | Bool, high: Float64 | Bool, dual: Float64 | Bool | None = None
) -> dict[str, float]:
    """Shares of `tokens` that are clipped on each side, given their numbers."""
    total = float(tokens.sum())
    sides = {"low": low, "high": high} | ({} if dual is None else {"dual": dual})
    return {
        f"train/clip_fraction_{side}": float(one.sum()) / total if total else 0.0
        for side, one in sides.items()
    }

"""What makes up for an engine, or an older policy, that sampled with other probabilities.

Three policies: the one that sampled (behaviour, its log-probabilities are the engine's), the
learner's at the start of the iteration (old) and the one being trained. Without a correction the
loss takes its ratio against the behaviour policy itself and there is nothing to make up for
("bypass"). With one it takes the ratio against old, which the learner computes once before the
first update, and each element of the loss is multiplied, outside of the clip, by a weight or a
mask made of w = exp(old - behaviour) ("decoupled", arXiv:2110.00641). Neither is applied twice.

A weight multiplies what a token's advantage says and nothing else: terms that have none (KL,
entropy) and the loss's denominator count every token as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.aggregate import Assigned, CreditMethod
from agentrl.credit.subtree import Levels, at_leaves, path_sums, subtree_sums
from agentrl.credit.table import Bool, TurnTable

LOG_WEIGHT_BOUND = 20.0
"""Log-weights are clamped to ± this before exp, those of tokens and those of trajectories."""


class Apart(NamedTuple):
    """How far old and behaviour are apart: log w of every token, and of every trajectory.

    `tokens` (N,) is 0 where it is not known, `known` (N,) says where it is; `leaves` (L,) are the
    sums along the paths and `lengths` (L,) the action tokens on them, at least 1; `trains` (L,)
    and `advantage` (L,) are the credit's.
    """

    tokens: Float64
    known: Bool
    leaves: Float64
    lengths: Float64
    trains: Bool
    advantage: Float64

    @classmethod
    def of(cls, table: TurnTable, assigned: Assigned, old: Float64) -> Apart:
        """`old` (N,) may be NaN for tokens that nothing trains."""
        assert table.logprobs is not None
        log_weight = old - table.logprobs.astype(np.float64)
        known = np.isfinite(log_weight)
        tokens = np.where(known, log_weight, 0.0)
        levels = Levels.of(table)
        turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
        of_turns = np.bincount(turn, tokens, len(table.tokens)).astype(np.float64)
        at = table.leaf_turn
        return cls(
            tokens=tokens,
            known=known,
            leaves=path_sums(levels, of_turns)[at],
            lengths=np.maximum(path_sums(levels, table.tokens.astype(np.float64))[at], 1.0),
            trains=assigned.leaves.trains,
            advantage=assigned.leaves.advantage,
        )


class Weights(NamedTuple):
    """Factors of tokens (N,) and of trajectories (L,), and what they were made of.

    `seen` are the weights before the cut, of the tokens or of the trajectories that count, and
    `cut` says which of them were cut.
    """

    tokens: Float64
    leaves: Float64
    seen: Float64
    cut: Bool


class Tis(Settings):
    """Truncated importance weights: min(w, cap).

    `level` "token" takes w of each token; "sequence" the product along the trajectory (the sum of
    logarithms clamped to ± 20), the same for all of its tokens: less biased, and useless beyond
    some hundred tokens, where products explode. The setting for data that is stale by a few
    updates (`train.max_lag` above 0), and for an engine of another precision.
    """

    decoupled: ClassVar[bool] = True

    type: Literal["tis"] = "tis"
    cap: float = Field(default=2.0, gt=1.0)
    level: Literal["token", "sequence"] = "token"

    def __call__(self, apart: Apart) -> Weights:
        """min(w_t, cap), or min(prod w_t, cap)."""
        if self.level == "token":
            weight = _exp(apart.tokens)
            seen = weight[apart.known]
            return Weights(np.minimum(weight, self.cap), _ones(apart), seen, seen > self.cap)
        whole = _exp(apart.leaves)
        seen = whole[apart.trains]
        leaves = np.minimum(whole, self.cap)
        return Weights(np.ones_like(apart.tokens), leaves, seen, seen > self.cap)


class Icepop(Settings):
    """Token mask (IcePop, arXiv:2510.18855): w where low <= w <= high, else 0.

    verl's and OpenRLHF's bounds are [0.5, 2] and [0.5, 5].
    """

    decoupled: ClassVar[bool] = True

    type: Literal["icepop"] = "icepop"
    low: float = Field(default=0.5, ge=0.0, le=1.0)
    high: float = Field(default=5.0, ge=1.0)

    def __call__(self, apart: Apart) -> Weights:
        """w_t * 1[low <= w_t <= high]."""
        weight = _exp(apart.tokens)
        kept = (weight >= self.low) & (weight <= self.high)
        return Weights(
            np.where(kept, weight, 0.0), _ones(apart), weight[apart.known], ~kept[apart.known]
        )


class SequenceMask(Settings):
    """Masked importance sampling: W = prod w of the trajectory where low <= W <= high, else 0.

    TRL's default has high = 3 and no lower bound. For short trajectories, as "tis" on sequences.
    """

    decoupled: ClassVar[bool] = True

    type: Literal["sequence_mask"] = "sequence_mask"
    low: float = Field(default=0.0, ge=0.0, le=1.0)
    high: float = Field(default=3.0, ge=1.0)

    def __call__(self, apart: Apart) -> Weights:
        """W * 1[low <= W <= high] on all tokens of the trajectory."""
        whole = _exp(apart.leaves)
        kept = (whole >= self.low) & (whole <= self.high)
        leaves = np.where(kept, whole, 0.0)
        seen, cut = whole[apart.trains], ~kept[apart.trains]
        return Weights(np.ones_like(apart.tokens), leaves, seen, cut)


class Geometric(Settings):
    """Rejects a trajectory whose geometric mean weight leaves [low, high]; any length.

    g = exp(mean log w) over its action tokens. Tokens of those that are kept carry min(w, cap),
    or nothing with `cap` None (verl's `geo_rs` with and without token weights; OpenRLHF's
    `seq-mask-tis` carries w uncut).
    """

    decoupled: ClassVar[bool] = True

    type: Literal["geometric"] = "geometric"
    low: float = Field(default=0.999, ge=0.0, le=1.0)
    high: float = Field(default=1.001, ge=1.0)
    cap: float | None = Field(default=None, gt=1.0)

    def __call__(self, apart: Apart) -> Weights:
        """1[low <= g <= high], times min(w_t, cap)."""
        mean = _exp(apart.leaves / apart.lengths)
        kept = (mean >= self.low) & (mean <= self.high)
        tokens = np.ones_like(apart.tokens)
        if self.cap is not None:
            tokens = np.minimum(_exp(apart.tokens), self.cap)
        return Weights(tokens, kept.astype(np.float64), mean[apart.trains], ~kept[apart.trains])


class OffPolicyMask(Settings):
    """Drops a trajectory that did badly and that the policy has left (DeepSeek-V3.2, section 3.1).

    Dropped iff A < 0 and the mean over its action tokens of (behaviour - old) exceeds `delta`. The
    ratio of the loss stays against the behaviour policy, as in the report, so nothing else is
    weighted. Measured at the start of the iteration, where the report measures anew in every
    update; with one update in an iteration they are the same.
    """

    decoupled: ClassVar[bool] = False

    type: Literal["off_policy_mask"] = "off_policy_mask"
    delta: float = Field(default=0.5, gt=0.0)

    def __call__(self, apart: Apart) -> Weights:
        """1 - 1[A < 0 and mean(behaviour - old) > delta]."""
        mean = apart.leaves / apart.lengths
        dropped = (apart.advantage < 0.0) & (-mean > self.delta)
        leaves = np.where(dropped, 0.0, 1.0)
        seen, cut = _exp(mean[apart.trains]), dropped[apart.trains]
        return Weights(np.ones_like(apart.tokens), leaves, seen, cut)


AnyCorrection: TypeAlias = Tis | Icepop | SequenceMask | Geometric | OffPolicyMask
"""Every correction that a recipe can name."""


def looked_at(table: TurnTable, leaves: Bool) -> Bool:
    """Turns (K,) on the paths of these leaves (L,): what a correction has to know of."""
    column = at_leaves(table, leaves.astype(np.float64))
    return subtree_sums(Levels.of(table), column) > 0


def correct(
    table: TurnTable, method: CreditMethod, assigned: Assigned, weights: Weights
) -> Assigned:
    """`assigned` under `weights`: gains and losses of tokens multiplied, their weight as it was.

    A trajectory's factor goes into its row weight, so that on a tree each of a turn's advantages
    keeps its own; no advantage changes, also where the factor is 0. Where all factors are 1 the
    numbers are bit for bit those of `assigned`. The denominator stays.
    """
    plain = assigned.credit.at_tokens(table)
    credit, rows = plain, assigned.rows
    if (weights.leaves[assigned.leaves.trains] != 1.0).any():
        rows = rows._replace(weights=rows.weights * weights.leaves)
        credit = rows.credit(table, method, leaves=assigned.leaves).at_tokens(table)
    corrected = replace(
        assigned.credit,
        positive=credit.positive * weights.tokens,
        negative=credit.negative * weights.tokens,
        weight=plain.weight,
        unit="token",
    )
    return assigned._replace(credit=corrected, rows=rows)


def correction_metrics(apart: Apart, weights: Weights) -> dict[str, float]:
    """Weights before the cut, the share that was cut, and how far old is from behaviour.

    `correction/difference` is the mean of |log w|, and `correction/behavior_kl` the mean of
    exp(x) - 1 - x with x = log w, an estimate (k3) of KL(behaviour ‖ old), both over tokens.
    """
    known = apart.tokens[apart.known]
    if not len(known) or not len(weights.seen):
        return {}
    x = np.clip(known, -LOG_WEIGHT_BOUND, LOG_WEIGHT_BOUND)
    return {
        "correction/weight_mean": float(weights.seen.mean()),
        "correction/weight_largest": float(weights.seen.max()),
        "correction/cut_fraction": float(weights.cut.mean()),
        "correction/difference": float(np.abs(known).mean()),
        "correction/behavior_kl": float((np.expm1(x) - x).mean()),
    }


def _exp(log_weights: Float64) -> Float64:
    return np.exp(np.clip(log_weights, -LOG_WEIGHT_BOUND, LOG_WEIGHT_BOUND))


def _ones(apart: Apart) -> Float64:
    return np.ones_like(apart.leaves)

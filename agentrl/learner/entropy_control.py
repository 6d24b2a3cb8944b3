"""What keeps a policy from becoming certain too soon: by a bonus that adapts, or token by token.

Settings that weigh or leave out tokens are of two kinds. `OfEntropies` look at the entropies that
the engine measured when the tokens were sampled, once an iteration. `OfCovariances` look at the
policy's log-probabilities just before each update, which costs a forward pass each time.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.table import Bool


class AdaptiveEntropy(Settings):
    """An entropy bonus that is there when it is needed (Skywork-OR1, arXiv:2505.22312).

    With H the policy's mean entropy over the trained tokens of the update before, c_0 =
    `learner.loss.entropy`:

        bonus of the update:  c if H <= target, else 0
        c <- c + step if H < target, c - step if H > target, within [0, 1]

    The paper takes H from what was sampled for the update itself; one update earlier costs nothing
    more. Before the first update there is none, and the bonus is c_0.
    """

    type: Literal["adaptive"] = "adaptive"
    target: float = Field(default=0.2, gt=0.0)
    step: float = Field(default=0.005, gt=0.0, le=1.0)


class EntropyAware(Settings):
    """Advantages weigh more where the policy was uncertain (AEPO, arXiv:2510.14545, code).

        A <- A * max(0, 1 + alpha z),   z = (H - mean) / std of the iteration's trained tokens

    H is the entropy at which the token was sampled, std the sample's (ddof = 1), z = 0 without any
    spread. Each token counts once, however many trajectories share it. The released code takes the
    statistics over a micro-batch, and computes no entropy while the bonus is off, as in its own
    configuration, so there nothing happens.
    """

    type: Literal["aware"] = "aware"
    alpha: float = Field(default=0.2, gt=0.0)

    def factors(self, entropies: Float64) -> Float64:
        """What the advantages of tokens with these entropies (n,) are multiplied by."""
        if len(entropies) < 2 or (spread := float(entropies.std(ddof=1))) <= 1e-12:
            return np.ones(len(entropies))
        z: Float64 = (entropies - entropies.mean()) / spread
        return np.maximum(0.0, 1.0 + self.alpha * z)


class TopEntropy(Settings):
    """Only the least certain tokens have a policy gradient (arXiv:2506.01939: 20 % of them).

    Those whose entropy is at least the (1 - fraction) quantile of the iteration's trained tokens;
    each counts once, however many trajectories share it. The denominator counts all.
    """

    type: Literal["top"] = "top"
    fraction: float = Field(default=0.2, gt=0.0, lt=1.0)

    def factors(self, entropies: Float64) -> Float64:
        """1 for the tokens that train, 0 for the others (n,)."""
        if not len(entropies):
            return np.ones(0)
        least = np.quantile(entropies, 1.0 - self.fraction)
        return np.asarray(entropies >= least, np.float64)


class ClipCov(Settings):
    """Some tokens of high covariance do not train (Clip-Cov, arXiv:2505.22617).

        cov_t = (A_t - mean A) (log p_t - mean log p)

    over the n trained tokens of an update, A_t the mean advantage of the token's trajectories. Of
    those with low < cov < high that the loss's clip leaves alone, max(1, floor(fraction n)) are
    drawn at random, by the recipe's seed; their policy gradient is 0.
    """

    type: Literal["clip_cov"] = "clip_cov"
    fraction: float = Field(default=2.0e-4, gt=0.0, lt=1.0)
    low: float = 1.0
    high: float = 5.0

    @model_validator(mode="after")
    def _check(self) -> ClipCov:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        return self

    def chosen(self, seen: Seen, rng: np.random.Generator) -> Bool:
        """Which of the tokens (n,) do not train."""
        cov = covariances(seen)
        candidates = np.flatnonzero((cov > self.low) & (cov < self.high) & ~seen.clipped)
        count = min(_count(self.fraction, len(cov)), len(candidates))
        chosen = np.zeros(len(cov), np.bool_)
        chosen[rng.choice(candidates, count, replace=False)] = True
        return chosen

    def gains(self, seen: Seen) -> Float64:
        """Minus the derivative (n,) of the element of tokens that do not train: 0."""
        return np.zeros(len(seen.gain))


class KlCov(Settings):
    """Tokens of the highest covariance are held back (KL-Cov, arXiv:2505.22617).

    The max(1, floor(fraction n)) tokens of an update with the highest cov_t (see `ClipCov`) have,
    in place of their clipped element, with x the importance ratio,

        -x A + coefficient |log p - log behaviour|

    whose second part has no gradient where the two are equal, as in the first update.
    """

    type: Literal["kl_cov"] = "kl_cov"
    fraction: float = Field(default=2.0e-4, gt=0.0, lt=1.0)
    coefficient: float = Field(default=1.0, gt=0.0)

    def chosen(self, seen: Seen, rng: np.random.Generator) -> Bool:
        """Which of the tokens (n,) are held back; of equals the first."""
        cov = covariances(seen)
        chosen = np.zeros(len(cov), np.bool_)
        chosen[np.argsort(-cov, kind="stable")[: _count(self.fraction, len(cov))]] = True
        return chosen

    def gains(self, seen: Seen) -> Float64:
        """Minus the derivative (n,) of the element by log p, weighted as the token's trajectories.

        x (positive + negative) - coefficient w sign(log p - log behaviour)
        """
        ratio = np.exp(np.clip(seen.log_ratio, -20.0, 20.0))
        gains: Float64 = ratio * seen.gain
        gains -= self.coefficient * seen.weight * np.sign(seen.log_ratio)
        return gains


OfEntropies: TypeAlias = EntropyAware | TopEntropy
OfCovariances: TypeAlias = ClipCov | KlCov
AnyEntropyControl: TypeAlias = AdaptiveEntropy | EntropyAware | TopEntropy | ClipCov | KlCov
"""Every entropy control that a recipe can name."""


class Seen(NamedTuple):
    """The n trained tokens of an update, just before it.

    `gain` is positive + negative, `weight` the sum of the trajectories' weights, `logprobs` the
    policy's and `log_ratio` against the behaviour policy; `clipped` where the loss's clip stops the
    token already.
    """

    gain: Float64
    weight: Float64
    logprobs: Float64
    log_ratio: Float64
    clipped: Bool


def covariances(seen: Seen) -> Float64:
    """(A - mean A)(log p - mean log p) of each token (n,)."""
    if not len(seen.gain):
        return np.zeros(0)
    advantage = seen.gain / seen.weight
    found: Float64 = (advantage - advantage.mean()) * (seen.logprobs - seen.logprobs.mean())
    return found


def _count(fraction: float, tokens: int) -> int:
    return min(tokens, max(1, int(fraction * tokens)))


class EntropyBonus:
    """The coefficient of the entropy bonus: constant, or adaptive with a state."""

    def __init__(self, start: float, control: AnyEntropyControl | None) -> None:
        self._control = control if isinstance(control, AdaptiveEntropy) else None
        self.coefficient = start
        self._last: float | None = None

    @property
    def current(self) -> float:
        """That of the next update."""
        if self._control is None or self._last is None or self._last <= self._control.target:
            return self.coefficient
        return 0.0

    def after(self, entropy: float | None) -> dict[str, float]:
        """Move on after an update whose tokens had this mean entropy, None where there were none.

        Returns the metric of the update, empty while nothing adapts.
        """
        if self._control is None or entropy is None:
            return {}
        metrics = {"train/entropy_coefficient": self.current}
        self._last = entropy
        step = self._control.step * float(np.sign(self._control.target - entropy))
        self.coefficient = min(1.0, max(0.0, self.coefficient + step))
        return metrics

    def state(self) -> list[float | None]:
        """What a checkpoint keeps."""
        return [self.coefficient, self._last]

    def restore(self, state: list[float | None]) -> None:
        """Continue from `state`."""
        coefficient, self._last = state
        self.coefficient = float(coefficient or 0.0)

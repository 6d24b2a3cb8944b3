"""What the learner says of an iteration's tokens before its first update: where a recipe asks.

Four settings look twice. `learner.kl_in_reward` needs the reference's log-probabilities before
credit is assigned, and so does `learner.loss.kl_target`, `credit: {type: otb}` the norms of the
tokens' gradients, `learner.correction` the log-probabilities of the policy at the start of the
iteration. Each costs a forward pass over the tokens that it needs (norms two), and without the
setting there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Float32, Float64, Group
from agentrl.credit import AnyCredit
from agentrl.credit.subtree import Levels, trajectory_sums
from agentrl.credit.table import Bool, TurnTable
from agentrl.learner.base import PolicyLearner
from agentrl.learner.batch import Row, gather, scatter
from agentrl.learner.correction import Apart, correct, correction_metrics, looked_at
from agentrl.learner.entropy_control import OfCovariances, OfEntropies, Seen
from agentrl.learner.kl_control import KlController
from agentrl.learner.kl_reward import KlInReward, charged, k1_of_tokens
from agentrl.learner.loss_settings import PpoLoss
from agentrl.learner.packing import pack_to_look
from agentrl.learner.settings import LearnerSettings
from agentrl.trainer.batches import Credited, TrainingStep


class Corrected(NamedTuple):
    """Credit as it trains, and metrics.

    `old` (N,) are the log-probabilities that ratios are taken against, NaN where nothing trains;
    None: against the behaviour policy's.
    """

    credited: Credited
    old: Float64 | None
    metrics: dict[str, float]


class SecondLook:
    """Penalises rewards and corrects credit as the learner's settings say; keeps their state."""

    def __init__(self, settings: LearnerSettings, learner: PolicyLearner, *, seed: int) -> None:
        self.settings = settings
        self.learner = learner
        self.seed = seed
        self.updates = 0
        in_reward, loss = settings.kl_in_reward or KlInReward(beta=0.0), settings.loss
        self.in_reward = KlController(
            in_reward.beta, target=in_reward.target, horizon=in_reward.horizon
        )
        self.in_loss = KlController(loss.kl, target=loss.kl_target, horizon=loss.kl_horizon)
        self.loss_kl: float | None = None
        """Weight of the loss's KL penalty in this iteration; None: as the recipe says."""

    @property
    def needs_tokens(self) -> bool:
        """Whether the table of an iteration must have its columns over tokens."""
        control = isinstance(self.settings.entropy_control, OfEntropies)
        return self._weighs_kl or self.settings.correction is not None or control

    @property
    def _weighs_kl(self) -> bool:
        """Whether `penalise` asks for the reference."""
        return self.in_reward.beta > 0 or self.in_loss.moves

    @property
    def before_updates(self) -> bool:
        """Whether `held_back` looks at the tokens of each update."""
        return isinstance(self.settings.entropy_control, OfCovariances)

    def penalise(
        self, groups: Sequence[Group], table: TurnTable
    ) -> tuple[TurnTable, dict[str, float]]:
        """`table` of `groups` with beta * k1 taken off at each token; sets the loss's weight of KL.

        k1 is the log-probability that the token was sampled with minus the reference's (see
        `KlInReward`). Returns the table and metrics; `loss_kl` is that of this iteration, and both
        controllers have moved on for the next. Where no setting asks nothing happens.
        """
        if not self._weighs_kl:
            return table, {}
        assert table.logprobs is not None
        every = np.ones(len(table.leaf_turn), np.bool_)
        reference = self._look(groups, table, every, self.learner.reference_logprobs)
        k1 = k1_of_tokens(table.logprobs.astype(np.float64), reference)
        leaves = trajectory_sums(table, Levels.of(table), _by_turn(table, k1))
        kl = float(leaves.mean()) if len(leaves) else 0.0
        metrics: dict[str, float] = {}
        if (beta := self.in_reward.beta) > 0:
            metrics |= {"credit/reward_kl": kl, "credit/reward_kl_beta": beta}
            table = charged(table, beta * k1)
            self.in_reward.after(kl, len(leaves))
        if self.in_loss.moves:
            self.loss_kl = self.in_loss.beta
            metrics |= {"train/loss_kl": kl, "train/loss_kl_beta": self.loss_kl}
            self.in_loss.after(kl, len(leaves))
        return table, metrics

    def weigh(self, groups: Sequence[Group], table: TurnTable) -> TurnTable:
        """`table` of `groups` with the learner's `logit_norms` of all tokens of trajectories."""
        every = np.ones(len(table.leaf_turn), np.bool_)
        norms = self._look(groups, table, every, self.learner.logit_norms)
        return replace(table, logit_norms=norms)

    def correct(self, groups: Sequence[Group], credited: Credited, method: AnyCredit) -> Corrected:
        """`credited` under the correction, then weighed by entropies; as it is without either."""
        found = self._corrected(groups, credited, method)
        control = self.settings.entropy_control
        if isinstance(control, OfEntropies):
            return found._replace(credited=weighed(found.credited, control))
        return found

    def held_back(self, step: TrainingStep) -> TrainingStep:
        """`step` without, or with other elements for, the tokens that a covariance chose.

        Which they are depends on the policy just before the update, the recipe's seed and the
        number of the update.
        """
        control, loss = self.settings.entropy_control, self.settings.loss
        if not isinstance(control, OfCovariances) or not isinstance(loss, PpoLoss):
            return step
        rng = np.random.default_rng((self.seed, self.updates))
        self.updates += 1
        rows, tokens = step.batch.rows, int(step.table.tokens.sum())
        columns = {
            name: gather(rows, [getattr(row, name) for row in rows], tokens)
            for name in ("positive", "negative", "weight", "behavior_logprobs")
        }
        columns["logprobs"] = gather(rows, self.learner.logprobs(rows), tokens)
        at = np.flatnonzero(np.isfinite(columns["logprobs"]))
        seen = seen_tokens({name: column[at] for name, column in columns.items()}, loss)
        chosen = control.chosen(seen, rng)
        gain = control.gains(seen)[chosen]
        positive, negative = columns["positive"], columns["negative"]
        behavior = columns["behavior_logprobs"]
        held = at[chosen]
        # At a ratio of 1 nothing is clipped, and the gradient of the element is its credit.
        behavior[held] = columns["logprobs"][held]
        positive[held], negative[held] = np.maximum(gain, 0.0), np.minimum(gain, 0.0)
        changed = scatter(rows, positive=positive, negative=negative, behavior_logprobs=behavior)
        return step._replace(batch=replace(step.batch, rows=changed))

    def _corrected(
        self, groups: Sequence[Group], credited: Credited, method: AnyCredit
    ) -> Corrected:
        correction = self.settings.correction
        if correction is None:
            return Corrected(credited, None, {})
        table, assigned = credited
        old = self._look(groups, table, assigned.leaves.trains, self.learner.logprobs)
        apart = Apart.of(table, assigned, old)
        weights = correction(apart)
        changed = Credited(table, correct(table, method, assigned, weights))
        metrics = correction_metrics(apart, weights)
        return Corrected(changed, old if correction.decoupled else None, metrics)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {
            "reward_kl_beta": self.in_reward.beta,
            "loss_kl_beta": self.in_loss.beta,
            "updates": self.updates,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Continue from `state`."""
        self.in_reward.beta = state["reward_kl_beta"]
        self.in_loss.beta = state.get("loss_kl_beta", self.in_loss.beta)  # absent in older ones
        self.updates = int(state["updates"])

    def _look(
        self,
        groups: Sequence[Group],
        table: TurnTable,
        leaves: Bool,
        evaluate: Callable[[Sequence[Row]], list[Float32]],
    ) -> Float64:
        """What `evaluate` says (N,) of the tokens on the paths of `leaves` (L,); NaN elsewhere."""
        wanted = looked_at(table, leaves).astype(np.float64)
        rows = pack_to_look(groups, table, wanted, pack_tokens=self.settings.pack_tokens)
        return gather(rows, evaluate(rows), int(table.tokens.sum()))


def _by_turn(table: TurnTable, values: Float64) -> Float64:
    """Sums (K,) of `values` (N,) over each turn's tokens."""
    turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
    return np.bincount(turn, values, len(table.tokens)).astype(np.float64)


def weighed(credited: Credited, control: OfEntropies) -> Credited:
    """`credited` with the advantages of trained tokens multiplied by what their entropies say.

    Raises ContractError where the engine did not measure the entropy of some trained token.
    """
    table, assigned = credited
    assert table.entropies is not None
    credit = assigned.credit.at_tokens(table)
    trained = credit.weight > 0
    entropies = table.entropies[trained].astype(np.float64)
    if not np.isfinite(entropies).all():
        raise ContractError(
            f"learner.entropy_control {control.type!r} weighs tokens by their entropies, and the "
            f"engine gave none for {np.count_nonzero(~np.isfinite(entropies))} of "
            f"{len(entropies)} trained tokens. Use an engine that does ('vllm' or 'transformers')"
        )
    factors = np.ones(len(trained))
    factors[trained] = control.factors(entropies)
    changed = replace(
        assigned.credit,
        positive=credit.positive * factors,
        negative=credit.negative * factors,
        weight=credit.weight,
        unit="token",
    )
    return Credited(table, assigned._replace(credit=changed))


def seen_tokens(columns: Mapping[str, Float64], loss: PpoLoss) -> Seen:
    """The tokens of an update by their `columns` (n,): a row's fields, and `logprobs`."""
    log_ratio = columns["logprobs"] - columns["behavior_logprobs"]
    ratio = np.exp(np.clip(log_ratio, -20.0, 20.0))
    above = (columns["positive"] > 0) & (ratio > 1.0 + loss.clip_high)
    below = (columns["negative"] < 0) & (ratio < 1.0 - loss.clip_low)
    return Seen(
        gain=columns["positive"] + columns["negative"],
        weight=columns["weight"],
        logprobs=columns["logprobs"],
        log_ratio=log_ratio,
        clipped=above | below,
    )


def unweighed(table: TurnTable) -> TurnTable:
    """`table` with the norms of a policy that is as uncertain everywhere: 1."""
    return replace(table, logit_norms=np.ones(int(table.tokens.sum())))


def against(
    steps: Sequence[TrainingStep], old: Float64, table: TurnTable, groups: Sequence[Group]
) -> list[TrainingStep]:
    """`steps` whose ratios are taken against `old` (N,), over the tokens of all `groups`."""
    changed = []
    number = {id(group): index for index, group in enumerate(groups)}
    group_of_token = np.repeat(table.group, table.tokens)
    for step in steps:
        own = old[np.isin(group_of_token, [number[id(group)] for group in step.groups])]
        rows = scatter(step.batch.rows, behavior_logprobs=own)
        changed.append(step._replace(batch=replace(step.batch, rows=rows)))
    return changed

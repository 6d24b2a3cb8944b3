"""Losses on turns and trajectories: by hand, against the published rows, finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from published_losses import elements, flat_rows, published_loss

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group
from agentrl.credit import ArpoCredit, GigpoCredit, GrpoCredit, TreeGrpoCredit, assign
from agentrl.credit.grpo import soft_credit
from agentrl.credit.table import Credit, TurnTable
from agentrl.learner.kernels import TrainedTokens, kernel
from agentrl.learner.levels import Evaluated, level_loss, needed_turns
from agentrl.learner.loss_settings import (
    GvpoLoss,
    LogclipLoss,
    LossSettings,
    PpoLoss,
    VespoLoss,
)
from agentrl.testing.trees import chains, random_groups, tree_of

LOSSES = {
    "gspo": PpoLoss(level="sequence", clip_low=0.01, clip_high=0.02, aggregation="sequence_mean"),
    "gspo dual": PpoLoss(level="sequence", clip_low=0.01, clip_high=0.02, dual_clip=1.05),
    "gspo balanced": PpoLoss(
        level="sequence", clip_low=0.01, clip_high=0.02, entropy_balanced=True
    ),
    "gspo-token": PpoLoss(level="sequence_token", clip_low=0.01, clip_high=0.02),
    "turn": PpoLoss(level="turn", clip_low=0.03, clip_high=0.04, dual_clip=1.15),
    "gmpo": LogclipLoss(clip_low=0.1, clip_high=0.15, aggregation="sequence_mean"),
    "gvpo": GvpoLoss(),
    "vespo": VespoLoss(aggregation="sequence_sum"),
}


def evaluated(
    groups, method, loss: LossSettings, *, seed: int = 0, spread: float = 0.2
) -> Evaluated:
    """All of `groups` as one step, the policy's log-probabilities around the behaviour's."""
    table = TurnTable.of(groups, with_tokens=True)
    assigned = assign(table, method, loss.aggregation, loss.constant)
    assert table.logprobs is not None
    behavior = table.logprobs.astype(np.float64)
    noise = np.random.default_rng(seed).normal(0.0, spread, len(behavior))
    return Evaluated(
        table=table,
        credit=assigned.credit,
        advantage=assigned.leaves.advantage,
        weights=assigned.rows.weights,
        logprobs=behavior + noise,
        behavior=behavior,
        denominator=assigned.denominator,
        grain=method.grain,
    )


def published(loss: LossSettings, step: Evaluated, advantage=None):
    """The published loss and its gradient (N,) on flattened rows."""
    rows = flat_rows(step.table, step.advantage if advantage is None else advantage, step.weights)
    logprobs = torch.tensor(step.logprobs, requires_grad=True)
    value = published_loss(
        loss, rows, logprobs, torch.tensor(step.behavior), denominator=step.denominator
    )
    (gradient,) = torch.autograd.grad(value, logprobs)
    return float(value.detach()), gradient.numpy()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("method", [GrpoCredit(), TreeGrpoCredit(), ArpoCredit()])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_a_tree_is_that_of_its_rows(name, method, seed):
    loss = LOSSES[name]
    step = evaluated(random_groups(seed, n_groups=6), method, loss, seed=seed)
    found = level_loss(loss, step)
    value, gradient = published(loss, step)
    assert np.abs(gradient).max() > 0
    assert found.loss / step.denominator == pytest.approx(value, rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(-found.gain / step.denominator, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_finite_differences(name):
    """Of the published rows, with what is under a stop-gradient held fixed."""
    loss = LOSSES[name]
    step = evaluated(random_groups(4, n_groups=3), GrpoCredit(), loss, seed=4)
    rows = flat_rows(step.table, step.advantage, step.weights)
    behavior, frozen = torch.tensor(step.behavior), torch.tensor(step.logprobs)
    found = -level_loss(loss, step).gain / step.denominator

    def value(logprobs) -> float:
        return published_loss(
            loss, rows, logprobs, behavior, denominator=step.denominator, frozen=frozen
        ).item()

    small = 1e-5
    checked = np.random.default_rng(0).choice(len(found), min(60, len(found)), replace=False)
    for token in checked:
        moved = torch.zeros(len(found), dtype=torch.float64)
        moved[token] = small
        wanted = (value(frozen + moved) - value(frozen - moved)) / (2 * small)
        assert found[token] == pytest.approx(wanted, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", ["gspo", "gspo dual", "gmpo", "gvpo"])
def test_the_loss_itself_has_that_gradient_where_nothing_is_frozen(name):
    loss = LOSSES[name]
    step = evaluated(random_groups(6, n_groups=3), GrpoCredit(), loss, seed=6)
    direction = np.random.default_rng(1).normal(size=len(step.logprobs))
    small = 1e-6
    up, down = (
        level_loss(loss, replace(step, logprobs=step.logprobs + sign * small * direction)).loss
        for sign in (1, -1)
    )
    found = -level_loss(loss, step).gain @ direction
    assert (up - down) / (2 * small) == pytest.approx(found, rel=1e-6)


def by_hand(
    loss: LossSettings, log_ratios: list[list[float]], advantages: list[float]
) -> tuple[Evaluated, np.ndarray]:
    """Chains of one turn a list of log-ratios, all of one group and of weight 1."""
    tokens = [len(one) for one in log_ratios]
    trees = tuple(tree_of([ROOT], {}, tokens=size) for size in tokens)
    table = TurnTable.of([Group("g", "t", trees)])
    advantage = np.asarray(advantages)
    count = len(advantage)
    step = Evaluated(
        table=table,
        credit=Credit(np.maximum(advantage, 0), np.minimum(advantage, 0), np.ones(count)),
        advantage=advantage,
        weights=np.ones(count),
        logprobs=np.concatenate(log_ratios) - 1.0,
        behavior=np.full(sum(tokens), -1.0),
    )
    return step, table.token_starts


def test_gspo_by_hand():
    """s = exp((0.03 + 0.01) / 2) = 1.0202013, both of 2 tokens; then one beyond 1.02."""
    loss = PpoLoss(level="sequence", clip_low=0.01, clip_high=0.05)
    step, _ = by_hand(loss, [[0.03, 0.01], [0.2, 0.0]], [2.0, 1.0])
    found = level_loss(loss, step)
    # Two tokens of -2 s, and two of -1.05: exp(0.1) is beyond 1.05.
    assert found.loss == pytest.approx(-2 * 2 * 1.0202013 - 2 * 1.05)
    # d/dl of -2 * 2 s is -4 s / 2 for each of the two tokens.
    assert found.gain == pytest.approx([2.0404027, 2.0404027, 0.0, 0.0])
    assert found.metrics == {
        "train/clip_fraction_low": 0.0,
        "train/clip_fraction_high": 0.5,
        "train/clip_fraction_dual": 0.0,
    }
    balanced = level_loss(loss.model_copy(update={"entropy_balanced": True}), step)
    assert balanced.loss == pytest.approx(found.loss)
    assert balanced.gain == pytest.approx([2.0404027, 2.0404027, 1.05, 1.05])


def test_gspo_of_losses_by_hand():
    """exp(-0.1) = 0.905 is below 0.99 and stops; exp(0.1) = 1.105 goes on until the dual clip."""
    loss = PpoLoss(level="sequence", clip_low=0.01, clip_high=0.02, dual_clip=1.2)
    step, _ = by_hand(loss, [[-0.1], [0.1], [0.3]], [-1.0, -1.0, -2.0])
    found = level_loss(loss, step)
    assert found.loss == pytest.approx(0.99 + 1.1051709 + 2 * 1.2)
    assert found.gain == pytest.approx([0.0, -1.1051709, 0.0])
    assert found.metrics["train/clip_fraction_low"] == pytest.approx(1 / 3)
    assert found.metrics["train/clip_fraction_dual"] == pytest.approx(1 / 3)


def test_the_geometric_mean_by_hand():
    """A > 0: l = 0.5, -0.9 count as 0.4, -0.9: exp(-0.25) = 0.7788008; only the second moves.

    A < 0: l = 0.1, -0.9 count as 0.1, -0.4: exp(-0.15) = 0.8607080; only the first moves.
    """
    loss = LogclipLoss()
    step, _ = by_hand(loss, [[0.5, -0.9], [0.1, -0.9]], [1.0, -1.0])
    found = level_loss(loss, step)
    assert found.loss == pytest.approx(2 * (-0.7788008 + 0.8607080))
    assert found.gain == pytest.approx([0.0, 0.7788008, -0.8607080, 0.0])
    assert found.metrics["train/clip_fraction_low"] == 0.25
    assert found.metrics["train/clip_fraction_high"] == 0.25


def test_the_regression_by_hand():
    """S = 0.1 x (0.4, 0, -0.1) = (0.04, 0, -0.01), mean 0.01; A = (1, 0, -1), mean 0.

    Differences (0.03 - 1, -0.01 - 0, -0.02 + 1) = (-0.97, -0.01, 0.98), summing to 0. Loss
    (0.9409 + 0.0001 + 0.9604) / (2 x 2) = 0.47535, slopes 0.1 x difference / 2.
    """
    step, _ = by_hand(GvpoLoss(), [[0.3, 0.1], [0.0], [-0.1]], [1.0, 0.0, -1.0])
    found = level_loss(GvpoLoss(), step)
    assert found.loss == pytest.approx(0.47535)
    assert -found.gain == pytest.approx([-0.0485, -0.0485, -0.0005, 0.049])
    shifted = replace(step, advantage=step.advantage + 5.0)
    assert level_loss(GvpoLoss(), shifted).gain == pytest.approx(found.gain)


def test_a_regression_leaves_out_groups_of_one_and_has_no_loss_without_another():
    groups = [chains([1.0, 0.0]), chains([1.0])]
    step = evaluated(groups, GrpoCredit(singleton="raw", scale="none"), GvpoLoss())
    found = level_loss(GvpoLoss(), step)
    pair = evaluated(groups[:1], GrpoCredit(scale="none"), GvpoLoss())
    assert found.loss / step.denominator == pytest.approx(
        level_loss(GvpoLoss(), pair).loss / pair.denominator
    )
    assert (found.gain[4:] == 0).all() and (found.gain[:4] != 0).all()
    alone = evaluated(groups[1:], GrpoCredit(singleton="raw"), GvpoLoss())
    assert level_loss(GvpoLoss(), alone).loss == 0.0
    assert (level_loss(GvpoLoss(), alone).gain == 0).all()


def test_vespo_by_hand():
    """W = exp(0.1) = 1.1051709, and ln W = 0.1.

    A = 1: exp(3 + 0.2 - 3 W) = exp(-0.1155128). A = -1: exp(2 + 0.3 - 2 W) = exp(0.0896582).
    """
    step, _ = by_hand(VespoLoss(), [[0.2, -0.1], [0.2, -0.1]], [1.0, -1.0])
    found = level_loss(VespoLoss(), step)
    up, down = 0.8909092, 1.0938003
    assert found.gain == pytest.approx([up, up, -down, -down], rel=1e-5)
    logprobs = [-0.8, -1.1]
    assert found.loss == pytest.approx(-(up - down) * sum(logprobs), rel=1e-5)


def test_the_turns_own_ratio_by_hand():
    """One trajectory of turns with l = (0.01, 0.03) and (0.0, -0.1): exp(0.02), exp(-0.05)."""
    loss = PpoLoss(level="turn", clip_low=0.03, clip_high=0.04)
    table = TurnTable.of([Group("g", "t", (tree_of([ROOT, 0], {}),))])
    step = Evaluated(
        table=table,
        credit=Credit(np.asarray([1.0, 0.0]), np.asarray([0.0, -1.0]), np.ones(2)),
        advantage=np.zeros(1),
        weights=np.ones(1),
        logprobs=np.asarray([0.01, 0.03, 0.0, -0.1]) - 1.0,
        behavior=np.full(4, -1.0),
        grain="copy",
    )
    found = level_loss(loss, step)
    # exp(-0.05) = 0.951 is below 0.97, where the loss of the second turn stops.
    assert found.loss == pytest.approx(-2 * 1.0202013 + 2 * 0.97)
    assert found.gain == pytest.approx([1.0202013, 1.0202013, 0.0, 0.0])
    assert found.metrics["train/clip_fraction_low"] == 0.5


def token_level(loss: PpoLoss, step: Evaluated):
    """Loss and gradient of the token kernel."""
    logprobs = torch.tensor(step.logprobs, requires_grad=True)
    tokens = step.tokens
    columns = (tokens.positive, tokens.negative, tokens.weight, step.behavior)
    terms = kernel(loss, logprobs, TrainedTokens(*map(torch.tensor, columns))).terms.sum()
    (gradient,) = torch.autograd.grad(terms, logprobs)
    return float(terms.detach()), gradient.numpy()


@pytest.mark.parametrize("level", ["turn", "sequence", "sequence_token"])
def test_with_one_token_every_level_is_ppo(level):
    loss = PpoLoss(level=level, clip_low=0.05, clip_high=0.08, dual_clip=1.3)
    groups = [chains([1.0, 0.0, 0.5, 0.0], tokens=1), chains([0.0, 1.0], tokens=1)]
    step = evaluated(groups, GrpoCredit(), loss, seed=8)
    found = level_loss(loss, step)
    value, gradient = token_level(loss.model_copy(update={"level": "token"}), step)
    assert found.loss == pytest.approx(value)
    np.testing.assert_allclose(-found.gain, gradient, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gspo_token_is_gspo_where_a_trajectory_has_one_advantage(seed):
    step = evaluated(random_groups(seed, n_groups=5), GrpoCredit(), LossSettings(), seed=seed)
    whole = level_loss(PpoLoss(level="sequence", clip_low=0.01, clip_high=0.02), step)
    token = PpoLoss(level="sequence_token", clip_low=0.01, clip_high=0.02)
    found = level_loss(token, step)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    np.testing.assert_allclose(found.gain, whole.gain, rtol=1e-12, atol=1e-15)
    assert found.metrics == whole.metrics


def test_on_the_behaviour_policy_all_levels_have_the_plain_gradient():
    step = evaluated(random_groups(2, n_groups=4), GrpoCredit(), LossSettings(), spread=0.0)
    plain = step.tokens.positive + step.tokens.negative
    for name, loss in LOSSES.items():
        if name != "gvpo":
            np.testing.assert_allclose(level_loss(loss, step).gain, plain, rtol=1e-9, atol=1e-12)


def by_leaf_and_turn(groups, method, loss: LossSettings, step: Evaluated) -> np.ndarray:
    """Advantages (L, K) of each trajectory's copies: credit with that trajectory's weight alone."""
    table = step.table
    found = np.zeros((len(step.weights), len(table.parent)))
    leaves = method.compare(table)
    for leaf in np.flatnonzero(step.weights):
        only = np.zeros(len(step.weights))
        only[leaf] = 1.0
        credit = method(table, only, leaves=leaves)
        found[leaf] = (credit.positive + credit.negative) * (credit.weight > 0)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_turns_with_advantages_of_each_copy_at_the_turn_level(seed):
    """GiGPO's per-leaf advantages, on trees with forks."""
    loss, method = LOSSES["turn"], GigpoCredit()
    groups = random_groups(seed, n_groups=5)
    step = evaluated(groups, method, loss, seed=seed)
    found = level_loss(loss, step)
    value, gradient = published(loss, step, by_leaf_and_turn(groups, method, loss, step))
    assert found.loss / step.denominator == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(-found.gain / step.denominator, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "forks"),
    [(GigpoCredit(), False), (ArpoCredit(attribution="hard"), True)],
)
def test_gspo_token_takes_advantages_that_vary_inside_a_trajectory(method, forks):
    loss = PpoLoss(
        level="sequence_token", clip_low=0.01, clip_high=0.02, dual_clip=1.05,
        aggregation="sequence_mean",
    )  # fmt: skip
    for seed in range(3):
        groups = (
            random_groups(seed, n_groups=5)
            if forks
            else [paid_chains(seed), paid_chains(seed + 10), paid_chains(seed + 20)]
        )
        step = evaluated(groups, method, loss, seed=seed)
        found = level_loss(loss, step)
        if forks:
            total = np.where(step.credit.weight > 0, step.credit.weight, 1.0)
            each = (step.credit.positive + step.credit.negative) / total
            advantage = np.tile(each, (len(step.weights), 1))
        else:
            advantage = by_leaf_and_turn(groups, method, loss, step)
            assert np.ptp(advantage[0][step.table.tree == 0]) > 0.1
        value, gradient = published(loss, step, advantage)
        assert found.loss / step.denominator == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(-found.gain / step.denominator, gradient, rtol=1e-9, atol=1e-12)
        assert np.abs(gradient).max() > 0


def paid_chains(seed: int) -> Group:
    """Four chains of three turns, paid anywhere, which all act from the same states."""
    rng = np.random.default_rng(seed)
    trees = []
    for _ in range(4):
        tree = tree_of([ROOT, 0, 1], dict(enumerate(rng.normal(size=3))), tokens=[2, 1, 3])
        tree.turns[:] = [
            replace(turn, state_key=f"s{index}") for index, turn in enumerate(tree.turns)
        ]
        trees.append(tree)
    return Group("g", "t", tuple(trees))


def test_copies_of_a_shared_turn_cannot_be_told_apart_by_gspo_token():
    group = Group("g", "t", (tree_of([ROOT, 0, 0], {1: 1.0}),))
    loss = PpoLoss(level="sequence_token", clip_low=0.01, clip_high=0.02)
    step = evaluated([group], GigpoCredit(), loss)
    with pytest.raises(ContractError, match="Use level 'turn' or 'token'"):
        level_loss(loss, step)


@pytest.mark.parametrize("name", LOSSES)
def test_what_was_not_evaluated_does_not_matter_or_is_named(name):
    """Garbage under the mask: only tokens on the path of a trajectory with an effect count."""
    loss = LOSSES[name]
    step = evaluated(random_groups(9, n_groups=8), GrpoCredit(truncated="mask"), loss, seed=9)
    clean = level_loss(loss, step)
    needed = needed_turns(step.table, step.credit, step.weights)
    if loss.trains_all:
        needed = step.credit.weight > 0
    other = ~np.repeat(needed, step.table.tokens)
    assert 5 < other.sum() < len(other)
    dirty = replace(
        step,
        logprobs=np.where(other, np.nan, step.logprobs),
        behavior=np.where(other, -77.0, step.behavior),
    )
    found = level_loss(loss, dirty)
    assert found.loss == pytest.approx(clean.loss, rel=1e-12)
    np.testing.assert_allclose(found.gain, clean.gain, rtol=1e-12, atol=1e-15)
    missing = step.logprobs.copy()
    missing[np.argmax(np.abs(clean.gain))] = np.nan
    with pytest.raises(ContractError, match="without a log-probability"):
        level_loss(loss, replace(step, logprobs=missing))


@pytest.mark.parametrize("name", LOSSES)
def test_groups_and_trees_may_come_in_any_order(name):
    loss = LOSSES[name]
    groups = random_groups(11, n_groups=5)
    step = evaluated(groups, GrpoCredit(), loss, spread=0.0)
    step = replace(step, logprobs=step.behavior * 0.9)
    turned = [replace(group, trees=tuple(reversed(group.trees))) for group in reversed(groups)]
    other = evaluated(turned, GrpoCredit(), loss, spread=0.0)
    other = replace(other, logprobs=other.behavior * 0.9)
    found, again = level_loss(loss, step), level_loss(loss, other)
    assert again.loss == pytest.approx(found.loss, rel=1e-12)
    np.testing.assert_allclose(np.sort(again.gain), np.sort(found.gain), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_of_two_halves_is_the_sum_of_both(name):
    """No statistic crosses groups: any split into steps of whole groups has the same gradient."""
    loss = LOSSES[name].model_copy(update={"aggregation": "token_mean"})
    groups = random_groups(12, n_groups=6)
    whole = evaluated(groups, GrpoCredit(), loss, spread=0.0)
    whole = replace(whole, logprobs=whole.behavior * 0.8)
    found = level_loss(loss, whole)
    loss_sum, gains, regressed = 0.0, [], []
    for part in (groups[:2], groups[2:]):
        step = evaluated(part, GrpoCredit(), loss, spread=0.0)
        step = replace(step, logprobs=step.behavior * 0.8)
        one = level_loss(loss, step)
        # The regression divides by its groups: undo that of each part.
        size = np.bincount(step.table.leaf_group[step.weights != 0], minlength=step.table.n_groups)
        share = (size > 1).sum() / step.denominator if name == "gvpo" else 1.0
        loss_sum += one.loss * share
        gains.append(one.gain * share)
        regressed.append((size > 1).sum())
    share = sum(regressed) / whole.denominator if name == "gvpo" else 1.0
    assert found.loss * share == pytest.approx(loss_sum, rel=1e-10)
    np.testing.assert_allclose(found.gain * share, np.concatenate(gains), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "gvpo"])
@pytest.mark.parametrize("grain", ["token factors", "trajectory factors"])
def test_a_correction_multiplies_elements(name, grain):
    """As rows that carry the factors: of tokens outside of the mean, of trajectories in w."""
    loss = LOSSES[name]
    step = evaluated(random_groups(3, n_groups=5), GrpoCredit(), loss, seed=3)
    rng = np.random.default_rng(3)
    rows = flat_rows(step.table, step.advantage, step.weights)
    tokens = step.tokens
    if grain == "token factors":
        factors = np.where(
            rng.random(len(step.turn)) < 0.2, 0.0, rng.uniform(0.3, 2.0, len(step.turn))
        )
        corrected = replace(
            step,
            credit=Credit(
                tokens.positive * factors, tokens.negative * factors, tokens.weight, "token"
            ),
        )
    else:
        factors = np.ones(len(step.turn))
        scale = rng.uniform(0.0, 2.0, len(step.weights))
        credit = soft_credit(step.table, step.levels, step.advantage, step.weights * scale)
        corrected = replace(step, weights=step.weights * scale, credit=credit)
        rows = [row._replace(weight=row.weight * s) for row, s in zip(rows, scale, strict=True)]
    logprobs = torch.tensor(step.logprobs, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        if row.weight and len(row.tokens):
            at = row.tokens
            behavior = torch.tensor(step.behavior)[at]
            each = elements(
                loss, logprobs[at], behavior, row.advantage, row.turns, logprobs[at].detach()
            )
            total = total + row.weight * (each * torch.tensor(factors)[at]).sum()
    (gradient,) = torch.autograd.grad(total, logprobs)
    found = level_loss(loss, corrected)
    assert found.loss == pytest.approx(float(total.detach()), rel=1e-9)
    np.testing.assert_allclose(-found.gain, gradient.numpy(), rtol=1e-8, atol=1e-12)


def test_ratios_beyond_all_bounds_stay_finite_and_still():
    for name, loss in LOSSES.items():
        step, _ = by_hand(loss, [[500.0, 400.0], [-600.0, -500.0], [0.0]], [1.0, -1.0, -1.0])
        found = level_loss(loss, step)
        assert np.isfinite(found.gain).all() and np.isfinite(found.loss), name


def test_nothing_gives_nothing():
    table = TurnTable.of([])
    empty = np.zeros(0)
    step = Evaluated(
        table=table,
        credit=Credit(empty, empty, empty),
        advantage=empty,
        weights=empty,
        logprobs=empty,
        behavior=empty,
    )
    for loss in LOSSES.values():
        found = level_loss(loss, step)
        assert found.loss == 0.0 and found.gain.shape == (0,)
    with pytest.raises(NotImplementedError, match="no loss of two passes"):
        level_loss(LossSettings(), step)

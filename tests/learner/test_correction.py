"""Engine corrections: numbers by hand, whole trajectories written out, and nothing where w = 1."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch

from agentrl.core.types import ROOT, Group
from agentrl.credit import (
    ArpoCredit,
    At2poCredit,
    GrpoCredit,
    SpoCredit,
    TreeGrpoCredit,
    TurnTable,
    assign,
)
from agentrl.learner.correction import (
    Apart,
    Geometric,
    Icepop,
    OffPolicyMask,
    SequenceMask,
    Tis,
    Weights,
    correct,
    correction_metrics,
    looked_at,
)
from agentrl.learner.kernels import TrainedTokens
from agentrl.learner.loss import policy_terms
from agentrl.learner.loss_settings import PpoLoss
from agentrl.testing.trees import random_groups, tree_of

ALL = [
    Tis(),
    Tis(level="sequence"),
    Icepop(),
    SequenceMask(low=0.2),
    Geometric(low=0.8, high=1.25),
    Geometric(low=0.8, high=1.25, cap=1.5),
    OffPolicyMask(delta=0.1),
]


def forked():
    """One shared turn of two tokens and two answers of one token, the first of them right.

    log w is (ln 2, 0) at the shared turn, ln 4 at the right answer and -ln 4 at the wrong one.
    """
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=[2, 1, 1])
    table = TurnTable.of([Group("g", "t", (tree,))], with_tokens=True)
    old = table.logprobs + np.asarray([log(2), 0.0, log(4), -log(4)])
    return table, old


def applied(correction, table, old, method=None, aggregation="token_mean"):
    method = method or GrpoCredit(scale="none")
    assigned = assign(table, method, aggregation)
    apart = Apart.of(table, assigned, old)
    weights = correction(apart)
    return correct(table, method, assigned, weights), apart, weights


# The advantages are 1/2 and -1/2. Trajectories: W = 2 * 1 * 4 = 8 and 2 * 1 / 4 = 1/2; geometric
# means over 3 tokens: 8 ** (1/3) = 2 and 0.79.
HAND = {
    # min(w, 2) of the tokens: 2, 1, 2, 1/4
    "tis": (Tis(), [1.0, 0.5, 1.0, 0.0], [-1.0, -0.5, 0.0, -0.125]),
    # min(W, 2): 2 and 1/2
    "tis of sequences": (Tis(level="sequence"), [1.0, 1.0, 1.0, 0.0], [-0.25, -0.25, 0.0, -0.25]),
    # w in [1/2, 5]: 2, 1, 4, and 1/4 is masked
    "icepop": (Icepop(), [1.0, 0.5, 2.0, 0.0], [-1.0, -0.5, 0.0, 0.0]),
    # W = 8 is above 3, W = 1/2 stays as a weight
    "sequence mask": (SequenceMask(), [0.0, 0.0, 0.0, 0.0], [-0.25, -0.25, 0.0, -0.25]),
    # 2 is above 1.5, 0.79 is inside: it is kept whole
    "geometric": (Geometric(low=0.5, high=1.5), [0.0] * 4, [-0.5, -0.5, 0.0, -0.5]),
    # the same, and what is kept carries min(w, 1.5): 1.5, 1, -, 1/4
    "geometric and weights": (
        Geometric(low=0.5, high=1.5, cap=1.5),
        [0.0] * 4,
        [-0.75, -0.5, 0.0, -0.125],
    ),
    # mean(behaviour - old) of the wrong one is ln 2 / 3 = 0.231; the right one's A is above 0
    "left behind": (OffPolicyMask(delta=0.23), [0.5, 0.5, 0.5, 0.0], [0.0] * 4),
    "not so far": (OffPolicyMask(delta=0.24), [0.5, 0.5, 0.5, 0.0], [-0.5, -0.5, 0.0, -0.5]),
}


@pytest.mark.parametrize("name", HAND)
def test_a_shared_turn_and_two_answers_by_hand(name) -> None:
    correction, positive, negative = HAND[name]
    found, *_ = applied(correction, *forked())
    np.testing.assert_allclose(found.credit.positive, positive, atol=1e-12)
    np.testing.assert_allclose(found.credit.negative, negative, atol=1e-12)
    np.testing.assert_array_equal(found.credit.weight, [2.0, 2.0, 1.0, 1.0])
    assert found.denominator == 6.0, "what is cut still counts"


def test_metrics_by_hand() -> None:
    _, apart, weights = applied(Tis(), *forked())
    found = correction_metrics(apart, weights)
    assert found == pytest.approx(
        {
            "correction/weight_mean": (2 + 1 + 4 + 0.25) / 4,
            "correction/weight_largest": 4.0,
            "correction/cut_fraction": 1 / 4,
            "correction/difference": 5 * log(2) / 4,
            # w - 1 - ln w of each: 1 - ln 2, 0, 3 - ln 4, -3/4 + ln 4
            "correction/behavior_kl": (1 - log(2) + 3 - 0.75) / 4,
        }
    )
    _, apart, weights = applied(Geometric(low=0.5, high=1.5), *forked())
    found = correction_metrics(apart, weights)
    assert found["correction/weight_mean"] == pytest.approx((2 + 2 ** (-1 / 3)) / 2)
    assert found["correction/cut_fraction"] == 0.5


def slow(correction, table, old, method, aggregation):
    """Each token of each trajectory by itself, from the definitions."""
    assigned = assign(table, method, aggregation)
    w = np.exp(old - table.logprobs)
    positive, negative = np.zeros(len(w)), np.zeros(len(w))
    for leaf, end in enumerate(table.leaf_turn):
        if not assigned.leaves.trains[leaf]:
            continue
        turns = []
        while end != ROOT:
            turns.append(end)
            end = table.parent[end]
        starts = table.token_starts
        tokens = [t for turn in turns for t in range(starts[turn], starts[turn + 1])]
        if not tokens:
            continue
        product = float(np.prod(w[tokens]))
        mean = product ** (1 / len(tokens))
        advantage = assigned.leaves.advantage[leaf]
        for t in tokens:
            match correction:
                case Tis(level="token"):
                    factor = min(w[t], correction.cap)
                case Tis():
                    factor = min(product, correction.cap)
                case Icepop():
                    factor = w[t] if correction.low <= w[t] <= correction.high else 0.0
                case SequenceMask():
                    factor = product if correction.low <= product <= correction.high else 0.0
                case Geometric():
                    factor = float(correction.low <= mean <= correction.high)
                    factor *= min(w[t], correction.cap) if correction.cap else 1.0
                case OffPolicyMask():
                    factor = float(not (advantage < 0 and -log(mean) > correction.delta))
            if aggregation == "turn_mean":
                factor /= next(table.tokens[k] for k in turns if starts[k] <= t < starts[k + 1])
            element = assigned.rows.weights[leaf] * factor * advantage
            positive[t] += max(element, 0.0)
            negative[t] += min(element, 0.0)
    return positive, negative


@pytest.mark.parametrize("correction", ALL, ids=lambda one: f"{one.type}-{one}")
@pytest.mark.parametrize("method", [GrpoCredit(), TreeGrpoCredit()], ids=lambda one: one.type)
@pytest.mark.parametrize("aggregation", ["token_mean", "turn_mean", "sequence_mean"])
def test_random_trees_are_as_their_trajectories_written_out(
    correction, method, aggregation
) -> None:
    changed = 0
    for seed in range(6):
        table = TurnTable.of(random_groups(seed, n_groups=4), with_tokens=True)
        rng = np.random.default_rng(seed)
        old = table.logprobs + rng.normal(0.0, 0.3, len(table.logprobs))
        found, *_ = applied(correction, table, old, method, aggregation)
        positive, negative = slow(correction, table, old, method, aggregation)
        np.testing.assert_allclose(found.credit.positive, positive, atol=1e-12)
        np.testing.assert_allclose(found.credit.negative, negative, atol=1e-12)
        plain = assign(table, method, aggregation)
        np.testing.assert_array_equal(found.credit.weight, plain.credit.at_tokens(table).weight)
        assert found.denominator == plain.denominator
        changed += not np.array_equal(found.credit.negative, plain.credit.at_tokens(table).negative)
    assert changed


@pytest.mark.parametrize("correction", ALL, ids=lambda one: f"{one.type}-{one}")
@pytest.mark.parametrize("method", [GrpoCredit(), ArpoCredit(attribution="hard")])
def test_equal_policies_change_no_bit(correction, method) -> None:
    table = TurnTable.of(random_groups(5, n_groups=4), with_tokens=True)
    found, apart, weights = applied(correction, table, table.logprobs.astype(np.float64), method)
    plain = assign(table, method)
    for name in ("positive", "negative", "weight"):
        expected = getattr(plain.credit.at_tokens(table), name)
        assert getattr(found.credit, name).tobytes() == expected.tobytes()
    assert found.rows.weights.tobytes() == plain.rows.weights.tobytes()
    metrics = correction_metrics(apart, weights)
    assert metrics["correction/cut_fraction"] == metrics["correction/difference"] == 0.0


@pytest.mark.parametrize(
    "method",
    [
        ArpoCredit(attribution="hard", scale="none"),
        At2poCredit(scale="none", node_value="leaves", prefix_weighting="node_once"),
        SpoCredit(),
    ],
    ids=lambda one: one.type,
)
def test_what_a_mask_drops_is_what_a_vanishing_weight_drops(method) -> None:
    # Leaves 1 (paid 1) and 2 share turn 0, a third trajectory is paid 1/4. Advantages 7/12, -5/12
    # and -1/6: the shared turn's is their mean 1/12 for each of its copies, of which one is left.
    trees = (tree_of([ROOT, 0, 0], {1: 1.0}, tokens=1), tree_of([ROOT], {0: 0.25}, tokens=1))
    table = TurnTable.of([Group("g", "g", trees)], with_tokens=True)
    assigned = assign(table, method)

    def shared(factor: float) -> float:
        weights = Weights(np.ones(4), np.asarray([1.0, factor, 1.0]), np.ones(1), np.zeros(1, bool))
        return float(correct(table, method, assigned, weights).credit.positive[0])

    assert shared(0.0) == pytest.approx(shared(1e-9)) == pytest.approx(shared(1.0) / 2)
    if method.type == "arpo":
        assert shared(0.0) == pytest.approx(1 / 12)


@pytest.mark.parametrize("correction", ALL, ids=lambda one: f"{one.type}-{one}")
def test_tokens_that_nothing_trains_may_be_unknown(correction) -> None:
    groups = random_groups(2, n_groups=5)
    table = TurnTable.of(groups, with_tokens=True)
    assigned = assign(table, GrpoCredit())
    rng = np.random.default_rng(0)
    old = table.logprobs + rng.normal(0.0, 0.3, len(table.logprobs))
    seen = np.repeat(looked_at(table, assigned.leaves.trains), table.tokens)
    assert 0 < seen.sum() < len(seen)
    found, *_ = applied(correction, table, old, GrpoCredit())
    hidden, *_ = applied(correction, table, np.where(seen, old, np.nan), GrpoCredit())
    np.testing.assert_array_equal(found.credit.positive, hidden.credit.positive)
    np.testing.assert_array_equal(found.credit.negative, hidden.credit.negative)


def test_products_that_explode_are_clamped() -> None:
    table = replace(forked()[0], logprobs=np.full(4, -90.0, np.float32))
    _, apart, weights = applied(Tis(level="sequence"), table, np.full(4, -0.1))
    assert weights.seen.max() == pytest.approx(exp(20.0))
    assert np.isfinite(list(correction_metrics(apart, weights).values())).all()


def test_nothing_to_train_has_no_metrics() -> None:
    table = TurnTable.of([], with_tokens=True)
    found, apart, weights = applied(Tis(), table, np.zeros(0))
    assert correction_metrics(apart, weights) == {} and len(found.credit.weight) == 0


def test_the_weight_stands_outside_of_the_clip() -> None:
    """Value and gradient of -w min(r A, clip(r) A), written out for each trajectory's token."""
    table = TurnTable.of(random_groups(7, n_groups=4), with_tokens=True)
    rng = np.random.default_rng(7)
    old = table.logprobs + rng.normal(0.0, 0.4, len(table.logprobs))
    start = torch.from_numpy(old + rng.normal(0.0, 0.3, len(old)))
    method, settings, correction = GrpoCredit(), PpoLoss(clip_high=0.25), Tis(cap=1.3)
    found, *_ = applied(correction, table, old, method)
    logprobs = start.clone().requires_grad_()
    columns = (found.credit.positive, found.credit.negative, found.credit.weight, old)
    tokens = TrainedTokens(*(torch.from_numpy(np.asarray(one)) for one in columns))
    loss = policy_terms(logprobs, torch.zeros_like(start), tokens, settings).sum()
    loss.backward()

    leaves, w = method.compare(table), np.minimum(np.exp(old - table.logprobs), 1.3)

    def written_out(logp: np.ndarray) -> float:
        ratio = np.exp(logp - old)
        total = 0.0
        for leaf, end in enumerate(table.leaf_turn):
            a = leaves.advantage[leaf]
            while end != ROOT:
                for t in range(table.token_starts[end], table.token_starts[end + 1]):
                    total -= w[t] * min(ratio[t] * a, np.clip(ratio[t], 0.8, 1.25) * a)
                end = table.parent[end]
        return total

    assert loss.item() == pytest.approx(written_out(start.numpy()), abs=1e-10)
    h = 1e-6
    for t in range(0, len(old), 3):
        up, down = start.numpy().copy(), start.numpy().copy()
        up[t] += h
        down[t] -= h
        slope = (written_out(up) - written_out(down)) / (2 * h)
        assert logprobs.grad[t].item() == pytest.approx(slope, abs=1e-6)

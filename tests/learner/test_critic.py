"""The critic's loss by hand and by finite differences; trees against their trajectories."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from learner_fakes import VOCABULARY, build_model
from pydantic import ValidationError
from test_tree_learner import as_trees, flattened, inputs, largest_difference, random_group

from agentrl.core.errors import ContractError
from agentrl.credit import GaeCredit, GrpoCredit, TurnGaeCredit, TurnTable
from agentrl.learner.batch import Row, RowValues, gather, join_rows, with_values
from agentrl.learner.critic import PackedCritic, TaughtTokens, value_sums, value_terms
from agentrl.learner.kernels import TrainedTokens
from agentrl.learner.loss import policy_terms
from agentrl.learner.loss_settings import PpoLoss
from agentrl.learner.model import prepare_policy
from agentrl.learner.settings import CriticSettings

LOSS = PpoLoss()
CPU = torch.device("cpu")


def taught(**columns) -> TaughtTokens:
    return TaughtTokens(*(torch.tensor(columns[name], dtype=torch.float64) for name in columns))


# -- the loss --------------------------------------------------------------------------------------


def test_squared_errors_by_hand():
    tokens = taught(
        weight=[2.0, 1.0, 0.0], target=[1.0, 0.0, 9.0], spread=[0.5, 0, 0], old=[0.0] * 3
    )
    values = torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64)
    # (2 * 1/4 + 1/2) / 2, 1 / 2, and a token that teaches nothing
    assert value_terms(values, tokens, None).tolist() == [0.5, 0.5, 0.0]


def test_a_value_that_went_too_far_by_hand():
    # The old value is 0 and the bound 0.2. A value of 0.5 on its way to 1 is held: the loss is that
    # of 0.2, 0.8^2 / 2. One of 0.5 that should be 0 is not: the larger error counts, 0.5^2 / 2. One
    # of 0.1 is within the bound: 0.9^2 / 2.
    tokens = taught(weight=[1.0] * 3, target=[1.0, 0.0, 1.0], spread=[0.0] * 3, old=[0.0] * 3)
    values = torch.tensor([0.5, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    loss = value_terms(values, tokens, 0.2)
    np.testing.assert_allclose(loss.detach(), [0.32, 0.125, 0.405])
    torch.autograd.backward(loss.sum())
    # The gradient is exactly 0 where the value is held, else V - R.
    np.testing.assert_allclose(values.grad, [0.0, 0.5, -0.9])
    sums = value_sums(values.detach(), tokens, 0.2)
    np.testing.assert_allclose(sums, [3, 0.32 + 0.125 + 0.405, 1])


@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_gradient_is_that_of_finite_differences(clip):
    rng = np.random.default_rng(0)
    columns = {name: rng.random(40) for name in ("weight", "target", "spread", "old")}
    tokens = taught(**columns)
    values = torch.from_numpy(rng.normal(size=40)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: value_terms(v, tokens, clip), (values,))


def test_with_a_chain_the_clip_is_ppos_and_on_a_tree_it_bounds_the_mean():
    """Copies of a token would each have a bound of their own; the sums have one, not above them."""
    w, r = torch.rand(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    mean = (w * r).sum() / w.sum()
    one = taught(
        weight=[float(w.sum())],
        target=[float(mean)],
        spread=[float((w * (r - mean) ** 2).sum())],
        old=[0.0],
    )
    for value in torch.linspace(-3, 3, 13, dtype=torch.float64):
        bounded = value.clamp(-0.2, 0.2)
        copies = (w * torch.maximum((value - r) ** 2, (bounded - r) ** 2)).sum() / 2
        found = value_terms(value[None], one, 0.2)[0]
        assert found <= copies + 1e-12
        within = (w * (value - r) ** 2).sum() / 2
        assert value_terms(value[None], one, None)[0] == pytest.approx(float(within))
        if abs(value) <= 0.2:
            assert found == pytest.approx(float(copies))


def test_settings_that_nothing_would_read_are_refused():
    assert CriticSettings(trunk="shared").weight == 0.1
    with pytest.raises(ValidationError, match="coefficient` weighs the value loss beside"):
        CriticSettings(coefficient=0.5)
    with pytest.raises(ValidationError, match="which a shared trunk cannot"):
        CriticSettings(trunk="shared", warmup_updates=3)


# -- values are read at the token before -----------------------------------------------------------


def trained_critic(seed=1) -> PackedCritic:
    """A critic in float64 whose head says something."""
    critic = PackedCritic(prepare_policy(build_model(grouped=True, seed=seed).double())).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in critic.head.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return critic


def values_of(critic: PackedCritic, row: Row) -> torch.Tensor:
    (ids, positions, _, previous), layout = inputs(row)
    return critic(ids, positions, previous, layout=layout)


def test_before_any_training_every_state_is_worth_0():
    critic = PackedCritic(prepare_policy(build_model()))
    row = Row.sequence([1, 2, 3, 4], weight=[0, 0, 1, 1])
    assert values_of(critic, row).tolist() == [0.0, 0.0]


def test_the_value_of_a_token_knows_all_before_it_and_not_the_token():
    critic = trained_critic()
    group = random_group(7, leaves=9)
    (row,) = as_trees([group], GrpoCredit(), LOSS, pack_tokens=4096).rows
    with torch.no_grad():
        clean = values_of(critic, row)
    for changed in np.random.default_rng(0).choice(len(row), 12, replace=False):
        ids = row.token_ids.copy()
        ids[changed] = (ids[changed] + 1) % VOCABULARY
        with torch.no_grad():
            dirty = values_of(critic, dataclasses.replace(row, token_ids=ids))
        for place, token in enumerate(np.flatnonzero(row.weight)):
            above = int(row.previous[token])
            while above not in (-1, changed):
                above = int(row.previous[above])
            same = torch.isclose(dirty[place], clean[place], atol=1e-12)
            assert bool(same) == (above == -1), (place, token, changed)


# -- trees and their trajectories laid out flat ----------------------------------------------------


def gae_batches(method, seeds, pack_tokens):
    """Trees with the sums of their targets, and a row for each trajectory with its own targets."""
    groups = [random_group(seed, leaves=9) for seed in seeds]
    table = TurnTable.of(groups)
    rng = np.random.default_rng(1)
    tokens = int(table.tokens.sum())
    table = dataclasses.replace(table, values=rng.normal(size=tokens))
    weights = np.ones(len(table.leaf_turn))
    leaves = method.compare(table)
    found = method.targets(table, weights, leaves)
    trees = as_trees(groups, GrpoCredit(singleton="raw"), LOSS, pack_tokens=pack_tokens)
    rows = with_values(trees.rows, **found._asdict(), old=table.values)
    flat = []
    # Each trajectory alone, through the same method: the sums are then of one leaf.
    for leaf, row in enumerate(flattened(groups, GrpoCredit(singleton="raw"), LOSS).rows):
        only = np.arange(len(weights)) == leaf
        own = method.targets(table, weights, leaves._replace(trains=leaves.trains & only))
        path, turn = [], table.leaf_turn[leaf]
        while turn >= 0:
            path.append(turn)
            turn = table.parent[turn]
        starts = table.token_starts
        sources = [t for turn in reversed(path) for t in range(starts[turn], starts[turn + 1])]
        at = np.full(len(row), -1)
        at[np.flatnonzero(row.weight)] = sources
        assert (own.spread == 0).all()
        numbered = dataclasses.replace(row, sources=at.astype(np.int32))
        flat += with_values([numbered], **own._asdict(), old=table.values)
    return rows, flat, table


def value_gradients(critic, rows, clip=None):
    critic.zero_grad()
    total = 0.0
    for row in rows:
        tokens = TaughtTokens(*(column.double() for column in TaughtTokens.of(row, 0, CPU)))
        loss = value_terms(values_of(critic, row), tokens, clip).sum()
        torch.autograd.backward(loss)
        total += float(loss.detach())
    return total, [p.grad.clone() for p in critic.parameters() if p.grad is not None]


@pytest.mark.parametrize("method", [GaeCredit(gamma=0.9, lam=0.8), TurnGaeCredit()])
@pytest.mark.parametrize("pack_tokens", [1, 60, 100_000])
def test_a_tree_teaches_what_its_trajectories_laid_out_flat_teach(method, pack_tokens):
    rows, flat, _ = gae_batches(method, (3, 4), pack_tokens)
    critic = trained_critic()
    wanted, theirs = value_gradients(critic, flat)
    found, ours = value_gradients(critic, rows)
    assert found == pytest.approx(wanted, rel=1e-5)  # targets travel as float32
    assert largest_difference(ours, theirs) < 5e-6


def exact_norm(self, hidden):
    """What transformers computes in float32, in the precision of its input."""
    square = hidden.square().mean(-1, keepdim=True)
    return self.weight * hidden * torch.rsqrt(square + self.variance_epsilon)


def test_the_gradient_of_the_weights_is_that_of_finite_differences(monkeypatch):
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    monkeypatch.setattr(Qwen3RMSNorm, "forward", exact_norm)
    rows, _, _ = gae_batches(GaeCredit(), (5,), 60)
    critic, step = trained_critic(), 1e-6

    def loss() -> float:
        found = 0.0
        for row in rows:
            tokens = TaughtTokens(*(column.double() for column in TaughtTokens.of(row, 0, CPU)))
            found += float(value_terms(values_of(critic, row), tokens, 0.5).sum())
        return found

    _, gradients = value_gradients(critic, rows, clip=0.5)
    rng = np.random.default_rng(2)
    parameters = [p for p in critic.parameters() if p.grad is not None]
    assert len(parameters) > 20
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            place = int(rng.integers(parameter.numel()))
            parameter.view(-1)[place] += step
            above = loss()
            parameter.view(-1)[place] -= 2 * step
            numeric = (above - loss()) / (2 * step)
            parameter.view(-1)[place] += step
            assert numeric == pytest.approx(float(gradient.view(-1)[place]), rel=1e-5, abs=1e-4)


def test_on_a_shared_trunk_both_losses_have_the_gradients_of_the_flat_rows():
    rows, flat, _ = gae_batches(GaeCredit(lam=0.9), (3,), 60)
    policy = prepare_policy(build_model(grouped=True).double())
    head = policy.add_value_head().double()
    with torch.no_grad():
        head.weight += 0.3
    found = []
    for batch in (rows, flat):
        policy.zero_grad()
        total = 0.0
        for row in batch:
            tensors, layout = inputs(row)
            at = tensors[2]
            columns = [
                torch.from_numpy(one).double()[at]
                for one in (row.positive, row.negative, row.weight, row.behavior_logprobs)
            ]
            tokens = TrainedTokens(*columns)
            own = TaughtTokens(*(c.double() for c in TaughtTokens.of(row, 0, CPU)))
            result = policy(
                *tensors,
                layout=layout,
                terms=lambda span, logp, entropies, t=tokens: policy_terms(
                    logp, entropies, t.part(span), LOSS
                ),
                value_terms=lambda values, t=own: 0.5 * value_terms(values, t, None),
                scale=0.1,
            )
            result.loss.backward()
            total += float(result.loss.detach())
        found.append((total, [p.grad.clone() for p in policy.parameters() if p.grad is not None]))
    (ours, tree), (theirs, apart) = found
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert largest_difference(tree, apart) < 5e-6


# -- what travels in a row -------------------------------------------------------------------------


def test_targets_travel_to_their_tokens_and_garbage_elsewhere_does_not_count():
    rows, _, table = gae_batches(GaeCredit(), (6,), 60)
    for name in RowValues._fields:
        columns = [getattr(row.values, name) for row in rows]
        back = gather(rows, columns, int(table.tokens.sum()))
        if name == "old":
            known = np.isfinite(back)
            np.testing.assert_allclose(back[known], table.values[known], rtol=1e-6)
    row = rows[0]
    noise = np.where(row.weight == 0, np.float32(np.nan), np.float32(0))
    dirty = dataclasses.replace(row, values=RowValues(*(one + noise for one in row.values)))
    for clean, other in zip(
        TaughtTokens.of(row, 0, CPU), TaughtTokens.of(dirty, 0, CPU), strict=True
    ):
        assert torch.equal(clean, other)
    assert join_rows(rows[:1]).values is None


def test_rows_without_targets_or_with_broken_ones_are_named():
    row = Row.sequence([1, 2, 3], weight=[0, 1, 1])
    with pytest.raises(ContractError, match="row 4 says nothing of values"):
        TaughtTokens.of(row, 4, CPU)
    columns = RowValues(*(np.full(3, np.nan, np.float32) for _ in RowValues._fields))
    with pytest.raises(ContractError, match="row 4: a value's target is not finite"):
        TaughtTokens.of(dataclasses.replace(row, values=columns), 4, CPU)
    assert all(len(one) == 0 for one in TaughtTokens.of(Row.sequence([0], weight=[0]), 0, CPU))

"""Every loss trained on trees against the paper's rows: one a trajectory, through a plain decoder.

The flattened side shares nothing with the learner: transformers' own forward pass on each
trajectory alone, log-softmax, `published_losses`, autograd. With `AGENTRL_SHOW=1` the largest
differences are printed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from learner_fakes import VOCABULARY, build_model, random_group
from published_losses import flat_rows, published_loss
from torch import Tensor

from agentrl.core.types import ROOT, Group
from agentrl.credit import (
    At2poCredit,
    GigpoCredit,
    GrpoCredit,
    HgpoCredit,
    TreeGrpoCredit,
    TurnTable,
)
from agentrl.learner.batch import gather, scatter
from agentrl.learner.kernels import TrainedTokens
from agentrl.learner.levels import Evaluated, level_loss
from agentrl.learner.loss import policy_terms
from agentrl.learner.loss_settings import (
    CispoLoss,
    DppoLoss,
    GvpoLoss,
    LogclipLoss,
    LossSettings,
    PpoLoss,
    QuadraticLoss,
    ReinforceLoss,
    SapoLoss,
    VespoLoss,
)
from agentrl.learner.model import PackedPolicy, prepare_policy
from agentrl.trainer.batches import TrainingStep, credit_of, training_steps

GSPO = {"clip_low": 0.02, "clip_high": 0.03}
CASES = {
    "gspo": (PpoLoss(level="sequence", aggregation="sequence_mean", **GSPO), TreeGrpoCredit()),
    "gspo, dual clip, reference": (
        PpoLoss(level="sequence", dual_clip=1.04, kl=0.1, entropy=0.01, **GSPO),
        GrpoCredit(),
    ),
    "gspo, turn mean": (PpoLoss(level="sequence", aggregation="turn_mean", **GSPO), GrpoCredit()),
    "gspo-token": (PpoLoss(level="sequence_token", **GSPO), GrpoCredit()),
    "gspo-token, turn sum": (
        PpoLoss(level="sequence_token", aggregation="turn_sum", **GSPO),
        GrpoCredit(),
    ),
    "gspo-token, turn mean": (
        PpoLoss(level="sequence_token", aggregation="turn_mean", kl=0.1, **GSPO),
        GrpoCredit(),
    ),
    "turn mean of turns": (
        PpoLoss(level="turn", clip_low=0.05, clip_high=0.06, aggregation="turn_mean"),
        GigpoCredit(),
    ),
    "clip, turn mean, reference": (
        PpoLoss(aggregation="turn_mean", kl=0.1, entropy=0.01),
        TreeGrpoCredit(),
    ),
    "gmpo, turn mean": (
        LogclipLoss(aggregation="turn_mean", clip_low=0.1, clip_high=0.1),
        GrpoCredit(),
    ),
    "vespo, turn mean": (VespoLoss(aggregation="turn_mean"), GrpoCredit()),
    "turn": (PpoLoss(level="turn", clip_low=0.05, clip_high=0.06), TreeGrpoCredit()),
    "turn, gigpo": (
        PpoLoss(level="turn", clip_low=0.05, clip_high=0.06, dual_clip=1.2, kl=0.1),
        GigpoCredit(),
    ),
    "turn, at2po": (
        PpoLoss(level="turn", clip_low=0.05, clip_high=0.06, aggregation="sequence_mean"),
        At2poCredit(),
    ),
    "clip, hgpo": (PpoLoss(aggregation="sequence_mean"), HgpoCredit(history=1)),
    "gmpo": (LogclipLoss(aggregation="sequence_mean", clip_low=0.1, clip_high=0.1), GrpoCredit()),
    "gvpo": (GvpoLoss(), GrpoCredit(scale="none")),
    "vespo": (VespoLoss(aggregation="sequence_mean"), GrpoCredit()),
    "clip, gigpo": (PpoLoss(), GigpoCredit()),
    "dual clip, gigpo, reference": (PpoLoss(dual_clip=1.4, kl=0.1), GigpoCredit()),
    "entropy-balanced": (PpoLoss(entropy_balanced=True), TreeGrpoCredit()),
    "cispo": (CispoLoss(clip_high=0.1), TreeGrpoCredit()),
    "sapo, reference": (
        SapoLoss(aggregation="sequence_mean", kl=0.1, kl_estimator="k3"),
        TreeGrpoCredit(),
    ),
    "dppo": (DppoLoss(clip_low=0.003, clip_high=0.004), GigpoCredit()),
    "quadratic": (QuadraticLoss(), GrpoCredit()),
    "reinforce": (ReinforceLoss(aggregation="sequence_sum"), GrpoCredit()),
}


class Trained(NamedTuple):
    """Loss and gradients by name."""

    loss: float
    gradients: dict[str, Tensor]


def decoder(seed: int, dtype: torch.dtype):
    model = build_model(grouped=True, seed=seed).to(dtype)
    model.set_attn_implementation("eager")
    return model


def near(groups: list[Group], model, spread: float) -> list[Group]:
    """`groups` as if a policy near to `model` had sampled them, from few states."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        known, _ = flat_logprobs(model, groups, TurnTable.of(groups))
    noise = rng.normal(0.0, spread, len(known))
    at = 0
    for group in groups:
        for tree in group.trees:
            for node, turn in enumerate(tree.turns):
                own = slice(at, at + len(turn.action_ids))
                behavior = (known[own].double().numpy() + noise[own]).astype(np.float32)
                tree.turns[node] = replace(
                    turn, logprobs=behavior, state_key=f"s{int(rng.integers(3))}"
                )
                at = own.stop
    return groups


def flat_logprobs(model, groups: list[Group], table: TurnTable) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) of all action tokens, each path computed alone."""
    nodes = [(tree, node) for g in groups for tree in g.trees for node in range(len(tree.turns))]
    starts = table.token_starts
    base: dict[int, int] = {}
    for row, (tree, _) in enumerate(nodes):
        base.setdefault(id(tree), row)
    dtype = next(model.parameters()).dtype
    found = torch.zeros(int(starts[-1]), dtype=dtype)
    spread = torch.zeros_like(found)
    for row, (tree, node) in enumerate(nodes):
        turn = tree.turns[node]
        if not len(turn.action_ids):
            continue
        ids = [*tree.prompt_ids]
        for above in tree.path(node)[:-1]:
            ids += [*tree.turns[above].action_ids, *tree.turns[above].observation_ids]
        begin = len(ids)
        ids += [*turn.action_ids]
        logits = model(torch.tensor([ids])).logits[0].to(dtype)
        log_p = torch.log_softmax(logits, -1)[begin - 1 : -1]
        own = torch.arange(int(starts[row]), int(starts[row + 1]))
        targets = torch.tensor(turn.action_ids.astype(np.int64))
        found = found.index_put((own,), log_p.gather(1, targets[:, None])[:, 0])
        spread = spread.index_put((own,), -(log_p.exp() * log_p).sum(-1))
    return found, spread


def flattened(model, reference, groups: list[Group], loss: LossSettings, method) -> Trained:
    """One row a trajectory: its own advantages, weights by the aggregation's definition."""
    table = TurnTable.of(groups, with_tokens=True)
    leaves = method.compare(table)
    advantage = copies(table, method, leaves) if method.grain != "trajectory" else None
    rows = flat_rows(table, leaves.advantage if advantage is None else advantage, leaves.trains)
    rows = [row for row in rows if row.weight and len(row.tokens)]
    if loss.aggregation == "token_mean":
        weighted, denominator = rows, float(sum(len(row.tokens) for row in rows))
    elif loss.aggregation == "sequence_mean":
        weighted = [row._replace(weight=1.0 / len(row.tokens)) for row in rows]
        denominator = float(len(rows))
    elif loss.aggregation.startswith("turn"):
        own = [row.turns.unique(return_inverse=True, return_counts=True) for row in rows]
        weighted, denominator = rows, float(sum(len(counts) for _, _, counts in own))
        if loss.aggregation == "turn_mean":
            factors = [1.0 / counts[place].double() for _, place, counts in own]
            weighted = [row._replace(factors=f) for row, f in zip(rows, factors, strict=True)]
    else:
        weighted, denominator = rows, float(len(rows))
    model.zero_grad()
    logprobs, entropies = flat_logprobs(model, groups, table)
    with torch.no_grad():
        known, _ = flat_logprobs(reference, groups, table)
    assert table.logprobs is not None
    behavior = torch.tensor(table.logprobs)
    value = published_loss(
        loss, weighted, logprobs.double(), behavior.double(), denominator=denominator
    )
    for row in weighted:
        at = row.tokens
        d = (logprobs - known)[at].double()
        k2, k3 = d**2 / 2, torch.exp(-d) - 1 + d
        estimate = k3 if loss.kl_estimator == "k3" else k2 - k2.detach() + k3.detach()
        extra = loss.kl * estimate - loss.entropy * entropies[at].double()
        value = value + row.weight * (row.factors * extra).sum() / denominator
    value.backward()
    return Trained(
        float(value.detach()),
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
    )


def copies(table: TurnTable, method, leaves) -> np.ndarray:
    """Advantages (L, K) of each trajectory's copies of its turns."""
    found = np.zeros((len(leaves.trains), len(table.parent)))
    for leaf in np.flatnonzero(leaves.trains):
        only = np.zeros(len(leaves.trains))
        only[leaf] = 1.0
        credit = method(table, only, leaves=leaves)
        found[leaf] = credit.positive + credit.negative
    return found


def as_trees(
    policy: PackedPolicy, reference, groups, loss: LossSettings, method, *, pack_tokens: int
) -> Trained:
    """The learner's way: packed trees, and for losses of two passes the trainer's numbers."""
    credited = credit_of(groups, method, loss)
    (step,) = training_steps(groups, credited, loss, pack_tokens=pack_tokens, updates=1)
    rows, value = step.batch.rows, 0.0
    dtype = next(policy.parameters()).dtype

    def inputs(row):
        trained = np.flatnonzero(row.weight)
        columns = (row.token_ids, row.positions, trained, row.previous[trained])
        return [torch.from_numpy(np.asarray(one, np.int64)) for one in columns]

    if loss.two_pass:
        rows, value = first_pass(policy, step, loss, method, inputs)
    policy.zero_grad()
    for row in rows:
        if not row.trained_tokens:
            continue
        tensors = inputs(row)
        columns = (row.positive, row.negative, row.weight, row.behavior_logprobs)
        with torch.no_grad():
            known = reference(*tensors, layout=row.layout).logprobs
        tokens = TrainedTokens(
            *(torch.from_numpy(one).to(dtype)[tensors[2]] for one in columns), reference=known
        )
        found = policy(
            *tensors,
            layout=row.layout,
            terms=lambda span, logprobs, entropies, t=tokens: policy_terms(
                logprobs, entropies, t.part(span), loss
            ),
            scale=1.0 / step.batch.denominator,
            entropy_gradient=loss.entropy > 0,
        )
        found.loss.backward()
        value += float(found.loss.detach())
    named = policy.model.named_parameters()
    return Trained(value, {name: p.grad.clone() for name, p in named if p.grad is not None})


def first_pass(policy: PackedPolicy, step: TrainingStep, loss: LossSettings, method, inputs):
    """Rows with the gradient as credit, and the loss."""
    columns = []
    for row in step.batch.rows:
        column = np.zeros(len(row))
        with torch.no_grad():
            found = policy(*inputs(row), layout=row.layout).logprobs
        column[np.flatnonzero(row.weight)] = found.double().numpy()
        columns.append(column)
    rows, tokens = step.batch.rows, int(step.table.tokens.sum())
    leveled = level_loss(
        loss,
        Evaluated(
            table=step.table,
            credit=step.credit,
            advantage=step.advantage,
            weights=step.weights,
            logprobs=gather(rows, columns, tokens),
            behavior=gather(rows, [row.behavior_logprobs for row in rows], tokens),
            denominator=step.batch.denominator,
            grain=method.grain,
        ),
    )
    positive, negative = np.maximum(leveled.gain, 0.0), np.minimum(leveled.gain, 0.0)
    changed = scatter(rows, positive=positive, negative=negative)
    return changed, leveled.loss / step.batch.denominator


def compare(name: str, groups: list[Group], dtype: torch.dtype, pack_tokens: int):
    """Relative differences of the loss, and of the worst parameter's gradient."""
    loss, method = CASES[name]
    groups = near(groups, decoder(0, torch.float64), spread=0.25)
    wanted = flattened(decoder(0, dtype), decoder(1, dtype), groups, loss, method)
    policy, reference = (
        prepare_policy(build_model(grouped=True, seed=i).to(dtype)) for i in (0, 1)
    )
    found = as_trees(policy, reference, groups, loss, method, pack_tokens=pack_tokens)
    assert found.gradients.keys() == wanted.gradients.keys() and len(found.gradients) > 20
    of_gradients = max(
        float((found.gradients[key] - one).abs().max() / one.abs().max())
        for key, one in wanted.gradients.items()
    )
    of_loss = abs(found.loss - wanted.loss) / abs(wanted.loss)
    if os.environ.get("AGENTRL_SHOW"):
        print(f"\n{name} {dtype}: loss {of_loss:.1e}, gradients {of_gradients:.1e}")
    return of_loss, of_gradients


@pytest.mark.parametrize("name", CASES)
def test_a_tree_has_the_loss_and_gradients_of_the_published_rows(name: str):
    of_loss, of_gradients = compare(
        name, [random_group(21, leaves=6), random_group(22, leaves=4)], torch.float64, 60
    )
    # Credit travels as float32.
    assert of_loss < 5e-6 and of_gradients < 3e-6


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [64])
@pytest.mark.parametrize("name", CASES)
def test_trees_of_up_to_64_leaves_agree_in_float32(name: str, leaves: int):
    of_loss, of_gradients = compare(
        name, [random_group(30 + leaves, leaves=leaves)], torch.float32, 256
    )
    assert of_loss < 1e-4 and of_gradients < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_trees_of_64_leaves_agree_in_float64(name: str):
    of_loss, of_gradients = compare(name, [random_group(94, leaves=64)], torch.float64, 256)
    assert of_loss < 5e-6 and of_gradients < 3e-6


def test_a_turn_without_tokens_and_a_failed_trajectory_change_nothing():
    """Both are in the random groups above; here they are counted, so that they stay there."""
    groups = [random_group(21, leaves=6), random_group(22, leaves=4)]
    turns = [turn for g in groups for tree in g.trees for turn in tree.turns]
    ends = [reason for g in groups for tree in g.trees for reason in tree.leaves.values()]
    assert any(not len(turn.action_ids) for turn in turns)
    assert any(reason.is_failure for reason in ends)
    assert max(tree.parents.count(ROOT) for g in groups for tree in g.trees) > 1
    assert all(turn.action_ids.max(initial=0) < VOCABULARY for turn in turns)

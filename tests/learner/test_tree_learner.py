"""Trees trained as trees against the same trees flattened: one row for each trajectory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from learner_fakes import VOCABULARY, build_model, random_group

from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree, Turn
from agentrl.credit import ArpoCredit, GrpoCredit, TreeGrpoCredit, TurnTable, assign, row_weights
from agentrl.learner.batch import Batch, Row, pack_rows
from agentrl.learner.kernels import TrainedTokens
from agentrl.learner.loss import policy_terms
from agentrl.learner.loss_settings import LossSettings, PpoLoss
from agentrl.learner.model import PackedPolicy, prepare_policy
from agentrl.learner.packing import pack_groups
from agentrl.learner.settings import LoraSettings

LOSSES = {
    "clip": PpoLoss(),
    "dual clip": PpoLoss(dual_clip=1.5),
    "reference and entropy": PpoLoss(kl=0.1, entropy=0.01),
    "sequence mean": PpoLoss(aggregation="sequence_mean"),
    "constant": PpoLoss(aggregation="constant", constant=20.0, kl=0.05, kl_estimator="k2"),
}


def flattened(groups, method, loss) -> Batch:
    """A row for each trajectory with its own copy of every turn, each with its own advantage."""
    table = TurnTable.of(groups)
    leaves = method.compare(table)
    found = row_weights(table, loss.aggregation, loss.constant, trains=leaves.trains)
    weights, denominator = found.weights, found.denominator
    nodes = [
        (tree, node) for group in groups for tree in group.trees for node in range(len(tree.turns))
    ]
    rows = []
    for leaf, turn in enumerate(table.leaf_turn):
        tree, node = nodes[turn]
        ids, trained, behavior = [*tree.prompt_ids], [0] * len(tree.prompt_ids), []
        behavior += trained
        for one in tree.path(node):
            step = tree.turns[one]
            ids += [*step.action_ids, *step.observation_ids]
            trained += [1] * len(step.action_ids) + [0] * len(step.observation_ids)
            behavior += [*step.logprobs, *[0.0] * len(step.observation_ids)]
        mask = np.asarray(trained) * weights[leaf]
        advantage = leaves.advantage[leaf]
        rows.append(
            Row.sequence(
                ids,
                weight=mask,
                positive=mask * max(advantage, 0.0),
                negative=mask * min(advantage, 0.0),
                behavior_logprobs=np.asarray(behavior),
            )
        )
    return Batch(tuple(rows), denominator)


def as_trees(groups, method, loss, *, pack_tokens: int) -> Batch:
    table = TurnTable.of(groups)
    assigned = assign(table, method, loss.aggregation, loss.constant)
    credit, denominator = assigned.credit, assigned.denominator
    return pack_groups(groups, table, credit, denominator=denominator, pack_tokens=pack_tokens)


def inputs(row: Row):
    trained = np.flatnonzero(row.weight)
    columns = (row.token_ids, row.positions, trained, row.previous[trained])
    tensors = [torch.from_numpy(np.asarray(one, np.int64)) for one in columns]
    return tensors, row.layout


def gradients(
    policy: PackedPolicy, batch: Batch, loss: LossSettings, reference: PackedPolicy
) -> tuple[float, list[torch.Tensor]]:
    """The batch's loss and the gradient of every parameter."""
    policy.zero_grad()
    total = 0.0
    for row in batch.rows:
        if not row.trained_tokens:
            continue
        tensors, layout = inputs(row)
        at = tensors[2]
        dtype = next(policy.parameters()).dtype
        columns = [
            torch.from_numpy(one).to(dtype)[at]
            for one in (row.positive, row.negative, row.weight, row.behavior_logprobs)
        ]
        with torch.no_grad():
            known = reference(*tensors, layout=layout).logprobs
        tokens = TrainedTokens(*columns, reference=known)
        found = policy(
            *tensors,
            layout=layout,
            terms=lambda span, logprobs, entropies, t=tokens: policy_terms(
                logprobs, entropies, t.part(span), loss
            ),
            scale=1.0 / batch.denominator,
            entropy_gradient=loss.entropy > 0,
        )
        found.loss.backward()
        total += float(found.loss.detach())
    return total, [p.grad.clone() for p in policy.parameters() if p.grad is not None]


def largest_difference(ours, theirs) -> float:
    """Of any parameter's gradient, relative to the largest entry of that gradient."""
    assert len(ours) == len(theirs) > 5
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("pack_tokens", [1, 60, 100_000])
def test_a_tree_has_the_loss_and_gradients_of_its_flattened_trajectories(name, pack_tokens):
    loss, method = LOSSES[name], TreeGrpoCredit()
    policy = prepare_policy(build_model(grouped=True).double())
    reference = prepare_policy(build_model(grouped=True, seed=1).double())
    groups = [random_group(3, leaves=12), random_group(4, leaves=6)]
    wanted, flat = gradients(policy, flattened(groups, method, loss), loss, reference)
    batch = as_trees(groups, method, loss, pack_tokens=pack_tokens)
    found, ours = gradients(policy, batch, loss, reference)
    # Credit travels as float32.
    assert found == pytest.approx(wanted, rel=1e-6)
    assert largest_difference(ours, flat) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [2, 16, 64])
@pytest.mark.parametrize("method", [GrpoCredit(), ArpoCredit(), TreeGrpoCredit()])
def test_trees_of_up_to_64_leaves_agree_in_float32(leaves, method):
    loss = PpoLoss(dual_clip=2.0, kl=0.1)
    policy = prepare_policy(build_model())
    reference = prepare_policy(build_model(seed=1))
    groups = [random_group(leaves, leaves=leaves)]
    wanted, flat = gradients(policy, flattened(groups, method, loss), loss, reference)
    found, ours = gradients(
        policy, as_trees(groups, method, loss, pack_tokens=256), loss, reference
    )
    assert found == pytest.approx(wanted, rel=1e-4)
    assert largest_difference(ours, flat) < 1e-4


@pytest.mark.parametrize("how", ["checkpointing", "lora"])
def test_checkpointing_and_adapters_see_the_same_tree(how):
    loss, method = PpoLoss(), GrpoCredit()
    options = {"gradient_checkpointing": True} if how == "checkpointing" else {}
    if how == "lora":
        options["lora"] = LoraSettings(rank=2)
    policy = prepare_policy(build_model().double(), **options)
    reference = prepare_policy(build_model(seed=1).double())
    if how == "lora":
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.01 * parameter.requires_grad
    groups = [random_group(5, leaves=9)]
    _, flat = gradients(policy, flattened(groups, method, loss), loss, reference)
    _, ours = gradients(policy, as_trees(groups, method, loss, pack_tokens=4096), loss, reference)
    assert largest_difference(ours, flat) < 2e-6


def test_no_token_sees_a_sibling_and_each_sees_all_above_it():
    policy = prepare_policy(build_model(grouped=True))
    group = random_group(7, leaves=9)
    (row,) = as_trees([group], GrpoCredit(), PpoLoss(), pack_tokens=4096).rows
    with torch.no_grad():
        tensors, layout = inputs(row)
        clean = policy(*tensors, layout=layout).logprobs
    rng = np.random.default_rng(0)
    for changed in rng.choice(len(row), 12, replace=False):
        ids = row.token_ids.copy()
        ids[changed] = (ids[changed] + 1) % VOCABULARY
        other = dataclasses.replace(row, token_ids=ids)
        with torch.no_grad():
            dirty = policy(*inputs(other)[0], layout=layout).logprobs
        for place, token in enumerate(np.flatnonzero(row.weight)):
            above = int(token)
            while above not in (-1, changed):
                above = int(row.previous[above])
            same = torch.isclose(dirty[place], clean[place], atol=1e-6)
            assert bool(same) == (above == -1), (place, token, changed)


def test_contexts_longer_than_a_block_of_queries_are_masked_right(monkeypatch):
    from agentrl.learner import attention

    policy = prepare_policy(build_model(grouped=True).double())
    groups = [random_group(8, leaves=9)]
    (row,) = as_trees(groups, GrpoCredit(), PpoLoss(), pack_tokens=4096).rows
    tensors, layout = inputs(row)
    with torch.no_grad():
        whole = policy(*tensors, layout=layout).logprobs
        monkeypatch.setattr(attention, "QUERY_BLOCK", 3)
        attention._blocks.cache_clear()
        attention._causal.cache_clear()
        parts = policy(*tensors, layout=layout).logprobs
    attention._blocks.cache_clear()
    attention._causal.cache_clear()
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)


def test_rows_of_trees_and_of_chains_are_joined_with_their_parents():
    groups = [random_group(9, leaves=6), Group("c", "c", (tree_of_one(),))]
    rows = as_trees(groups, GrpoCredit(singleton="raw"), PpoLoss(), pack_tokens=4096).rows
    apart = [
        as_trees([one], GrpoCredit(singleton="raw"), PpoLoss(), pack_tokens=4096).rows[0]
        for one in groups
    ]
    (joined,) = rows
    assert len(joined) == sum(map(len, apart))
    assert sorted(joined.parents.tolist()).count(-1) == 2
    assert pack_rows(apart, 4096)[0].token_ids.tolist() == joined.token_ids.tolist()


def tree_of_one() -> TrajectoryTree:
    tree = TrajectoryTree("c", [1, 2])
    turn = Turn(
        action_ids=np.asarray([3, 4], np.int32),
        logprobs=np.asarray([-1.0, -1.0], np.float32),
        entropies=np.zeros(2, np.float32),
        reward=1.0,
    )
    tree.end(tree.add(ROOT, turn), StopReason.TERMINATED)
    return tree

"""What a critic is asked before credit is assigned, and what it is taught afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from agentrl.core.types import Float64, Group, TrajectoryTree, Turn
from agentrl.credit.table import Bool, TurnTable
from agentrl.credit.values import ValueBaseline, ValueTargets
from agentrl.learner.base import PolicyLearner
from agentrl.learner.batch import gather, with_values
from agentrl.learner.correction import looked_at
from agentrl.learner.packing import pack_to_look
from agentrl.trainer.batches import Credited, TrainingStep


class Taught(NamedTuple):
    """The steps with what the critic learns in them, and metrics."""

    steps: list[TrainingStep]
    metrics: dict[str, float]


def valued(
    groups: Sequence[Group], table: TurnTable, learner: PolicyLearner, *, pack_tokens: int
) -> TurnTable:
    """`table` of `groups` with the critic's values and those of truncated leaves' last states.

    One evaluation of all turns on the path of a leaf, each once. NaN for tokens on no such path.
    """
    probed = [_with_probes(group) for group in groups]
    whole = TurnTable.of([one.group for one in probed])
    probe = np.concatenate([np.zeros(0, np.bool_), *(one.probe for one in probed)])
    wanted = looked_at(whole, np.ones(len(whole.leaf_turn), np.bool_)).astype(np.float64)
    rows = pack_to_look([one.group for one in probed], whole, wanted, pack_tokens=pack_tokens)
    values = gather(rows, learner.values(rows), int(whole.tokens.sum()))
    of_probe = np.repeat(probe, whole.tokens)
    # Every tree keeps its turns and leaves in their order, so both parts are in that of `table`.
    bootstrap = np.zeros(len(table.leaf_turn))
    bootstrap[table.leaf_truncated] = values[of_probe]
    return replace(table, values=values[~of_probe], bootstrap=bootstrap)


def unvalued(table: TurnTable) -> TurnTable:
    """`table` with the values of a critic that has learned nothing: 0 everywhere."""
    tokens, leaves = int(table.tokens.sum()), len(table.leaf_turn)
    return replace(table, values=np.zeros(tokens), bootstrap=np.zeros(leaves))


def teach(
    steps: Sequence[TrainingStep],
    credited: Credited,
    method: ValueBaseline,
    groups: Sequence[Group],
) -> Taught:
    """`steps` of `groups` with the critic's targets: `method`'s over the whole iteration.

    In each step the weights are scaled so that they sum to those of the policy's tokens: the value
    loss is then aggregated as the policy's also where a method teaches some of the tokens only.
    """
    table, assigned = credited
    assert table.values is not None
    targets = method.targets(table, assigned.rows.weights, assigned.leaves)
    if assigned.rows.turns is not None:
        # A turn has as much weight as in the policy's loss, whichever of its tokens teach.
        turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
        taught = np.bincount(turn, targets.weight > 0, len(table.tokens))
        each = (assigned.rows.turns * table.tokens / np.maximum(taught, 1.0))[turn]
        targets = targets._replace(weight=targets.weight * each, spread=targets.spread * each)
    number = {id(group): index for index, group in enumerate(groups)}
    group_of_token = np.repeat(table.group, table.tokens)
    changed = []
    for step in steps:
        own = np.isin(group_of_token, [number[id(group)] for group in step.groups])
        weight = targets.weight[own]
        scale = float(step.credit.weight.sum() / (weight.sum() or 1.0))
        rows = with_values(
            step.batch.rows,
            weight=scale * weight,
            target=targets.target[own],
            spread=scale * targets.spread[own],
            old=np.nan_to_num(table.values[own]),
        )
        changed.append(step._replace(batch=replace(step.batch, rows=rows)))
    return Taught(changed, _metrics(targets, table.values))


class _Probed(NamedTuple):
    """A group in which a turn of one token follows every truncated leaf; which turns (K,) do."""

    group: Group
    probe: Bool


def _with_probes(group: Group) -> _Probed:
    """What predicts a token that follows the last state has seen all of that state."""
    trees, probes = [], [np.zeros(0, np.bool_)]
    for tree in group.trees:
        copy = TrajectoryTree(tree.task_id, tree.prompt_ids)
        copy.parents, copy.turns = [*tree.parents], [*tree.turns]
        for node, reason in sorted(tree.leaves.items()):
            copy.end(copy.add(node, _PROBE) if reason.is_truncation else node, reason)
        trees.append(copy)
        probes.append(np.arange(len(copy.turns)) >= len(tree.turns))
    return _Probed(replace(group, trees=tuple(trees)), np.concatenate(probes))


_PROBE = Turn(
    action_ids=np.zeros(1, np.int32),
    logprobs=np.zeros(1, np.float32),
    entropies=np.zeros(1, np.float32),
)


def _metrics(targets: ValueTargets, values: Float64) -> dict[str, float]:
    """What the critic knew before the update, over the copies of the tokens that teach it.

    Explained variance is 1 - Var(R - V) / Var(R), not given where all targets are one.
    """
    taught = targets.weight > 0
    if not taught.any():
        return {}
    weight, target, value = targets.weight[taught], targets.target[taught], values[taught]
    total = weight.sum()
    mean = float((weight * target).sum() / total)
    spread = targets.spread[taught].sum()
    variance = ((weight * (target - mean) ** 2).sum() + spread) / total
    error = target - value
    off = float((weight * error).sum() / total)
    unexplained = ((weight * (error - off) ** 2).sum() + spread) / total
    found = {
        "credit/value_mean": float((weight * value).sum() / total),
        "credit/value_target_mean": mean,
    }
    if variance > 1e-12 * max(1.0, mean**2):
        found["credit/explained_variance"] = float(1.0 - unexplained / variance)
    return found

"""Groups and their credit into packed rows, each sampled token trained in exactly one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Float64, Group, TrajectoryTree
from agentrl.credit.aggregate import CreditMethod
from agentrl.credit.table import Credit, TurnTable
from agentrl.learner.batch import Batch, Row, pack_rows


def pack_groups(
    groups: Sequence[Group],
    table: TurnTable,
    credit: Credit,
    *,
    denominator: float,
    pack_tokens: int,
) -> Batch:
    """A batch in which every turn with a weight is trained once, after its whole context.

    Each leaf's path is a sequence: the prompt, then actions and observations. A shared turn is
    trained in the sequence of the first leaf below it, in node order, and is context in the
    others; its credit already holds what all its leaves say. A sequence ends with its last
    trained token, since what follows a token cannot change its log-probability; one with nothing
    left to train is dropped. `table` and `credit` are those of `groups`. Raises ContractError on
    a log-probability of a trained token that is not finite.
    """
    turns = sum(len(tree.turns) for group in groups for tree in group.trees)
    if not turns == len(table.parent) == len(credit.weight):
        raise ContractError(
            f"the groups have {turns} turns, their table {len(table.parent)} and their credit "
            f"{len(credit.weight)}: they are not of one another"
        )
    columns = np.stack([credit.positive, credit.negative, credit.weight], axis=1)
    sequences: list[Row] = []
    start = 0
    for group in groups:
        for tree in group.trees:
            stop = start + len(tree.turns)
            sequences += _tree_sequences(tree, columns[start:stop])
            start = stop
    return Batch(pack_rows(sequences, pack_tokens), denominator)


def split_groups(groups: Sequence[Group], method: CreditMethod, *, n: int) -> list[list[Group]]:
    """At most `n` parts of whole groups for as many optimizer steps, equal in number within one.

    Groups that train nothing are left out first, so that no step is empty: there may be fewer
    than `n` parts, or none. Credit and denominator of a part are `assign`'s over it alone, which
    changes no advantage, since values are compared within a group.
    """
    table = TurnTable.of(groups)
    trains = np.bincount(table.leaf_group[method.compare(table).trains], minlength=len(groups))
    used = np.flatnonzero(trains)
    parts = np.array_split(used, min(n, len(used))) if len(used) else []
    return [[groups[index] for index in part] for part in parts]


def _tree_sequences(tree: TrajectoryTree, columns: Float64) -> list[Row]:
    """The sequences of one tree; `columns` (turns, 3) are its positive, negative and weight."""
    waiting = {
        node
        for node, turn in enumerate(tree.turns)
        if columns[node, 2] > 0 and len(turn.action_ids)
    }
    rows = []
    for leaf in sorted(tree.leaves):
        path = tree.path(leaf)
        trained = [node for node in path if node in waiting]
        if trained:
            waiting.difference_update(trained)
            rows.append(_sequence(tree, path[: path.index(trained[-1]) + 1], trained, columns))
    return rows


def _sequence(
    tree: TrajectoryTree, path: Sequence[int], trained: Sequence[int], columns: Float64
) -> Row:
    """The tokens of `path` up to its last action, with the credit of the turns `trained`."""
    turns = [tree.turns[node] for node in path]
    pieces = [tree.prompt_ids]
    for turn in turns:
        pieces += [turn.action_ids, turn.observation_ids]
    token_ids = np.concatenate(pieces[:-1])
    credit = np.zeros((3, len(token_ids)), np.float32)
    logprobs = np.zeros(len(token_ids), np.float32)
    start, training = len(tree.prompt_ids), set(trained)
    for node, turn in zip(path, turns, strict=True):
        stop = start + len(turn.action_ids)
        if node in training:
            if not np.isfinite(turn.logprobs).all():
                raise ContractError(
                    f"turn {node} of task {tree.task_id!r} (group {tree.group_id!r}) has a "
                    "log-probability that is not finite: the engine returned no number for a "
                    "token that it sampled"
                )
            credit[:, start:stop] = columns[node][:, None]
            logprobs[start:stop] = turn.logprobs
        start = stop + len(turn.observation_ids)
    return Row.sequence(
        token_ids,
        positive=credit[0],
        negative=credit[1],
        weight=credit[2],
        behavior_logprobs=logprobs,
    )

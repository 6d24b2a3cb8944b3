"""Anchor groups of turns that saw almost the same."""

from __future__ import annotations

from difflib import SequenceMatcher

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Int32
from agentrl.credit.table import Int64, TurnTable


def similar_states(table: TurnTable, threshold: float) -> Int64:
    """A state (K,) for each turn, shared with turns of its group that saw something similar.

    Greedily, in the order of the table: a turn joins the first cluster of its group whose *first*
    member saw tokens of which difflib's ratio, 2 * matches / (both lengths), is at least
    `threshold`; else it starts a cluster (GiGPO, arXiv:2505.10978, as released). So clusters depend
    on the order of trees and turns, and two turns of one cluster may be less alike than
    `threshold`. A turn that saw nothing has no state (-1).

    Differs from the released code: it compares tokens and not characters, and never leaves frequent
    ones out (difflib's "junk" in sequences of 200 and more). Takes time in turns * clusters, though
    an observation that was met before is looked up. Raises ContractError without `table.seen`.
    """
    if table.seen is None:
        raise ContractError(
            "anchors by similarity compare what turns saw, which this table lacks: make it by "
            "TurnTable.of(groups, with_tokens=True)"
        )
    states = np.full(len(table.seen), -1, np.int64)
    clusters: list[list[_Cluster]] = [[] for _ in range(table.n_groups)]
    met: dict[tuple[int, bytes], int] = {}
    count = 0
    for row, (group, seen) in enumerate(zip(table.group.tolist(), table.seen, strict=True)):
        if not len(seen):
            continue
        # An equal observation would go the same way: clusters are only ever added at the end.
        key = (group, seen.tobytes())
        if key not in met:
            found = next((c for c in clusters[group] if c.takes(seen, threshold)), None)
            if found is None:
                found = _Cluster(count, seen)
                clusters[group].append(found)
                count += 1
            met[key] = found.number
        states[row] = met[key]
    return states


class _Cluster:
    """The turns of a group that saw what its first member saw, or something similar."""

    def __init__(self, number: int, seen: Int32) -> None:
        self.number = number
        self._matcher = SequenceMatcher(None, autojunk=False)
        self._matcher.set_seq2(seen.tolist())

    def takes(self, seen: Int32, threshold: float) -> bool:
        """Whether `seen` is similar enough; the two quick ratios are upper bounds."""
        matcher = self._matcher
        matcher.set_seq1(seen.tolist())
        return (
            matcher.real_quick_ratio() >= threshold
            and matcher.quick_ratio() >= threshold
            and matcher.ratio() >= threshold
        )

"""Sums along paths and over subtrees of all trees at once, in the number of turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit.table import Int64, TurnTable


class Levels(NamedTuple):
    """The rows of a table sorted by depth, so that every level is one slice.

    `order` (K,) are table rows, `bounds` (D+1,) where each depth starts in it, and `above` (K,)
    each sorted row's parent as an index into the level before (0 at depth 0, where it means
    nothing).
    """

    order: Int64
    bounds: Int64
    above: Int64

    @classmethod
    def of(cls, table: TurnTable) -> Levels:
        """Levels of `table`: one counting sort, O(K)."""
        depth = table.depth
        if not depth.any():
            rows = np.arange(len(depth))
            return cls(rows, np.asarray([0, len(depth)]), np.zeros(len(depth), np.int64))
        counts = np.bincount(depth)
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        # NumPy sorts 16-bit keys by radix, in linear time; deeper tables fall back to merging.
        keys = depth.astype(np.uint16) if len(counts) <= 1 << 16 else depth
        order = np.argsort(keys, kind="stable")
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order), dtype=np.int64)
        parent = table.parent[order]
        starts = np.concatenate([np.zeros(1, np.int64), bounds[:-1]])[depth[order]]
        above = np.where(parent == ROOT, 0, position[parent] - starts)
        return cls(order, bounds, above)

    @property
    def flat(self) -> bool:
        """Whether no row has a parent, so that every sum is the row's own."""
        return len(self.bounds) <= 2

    def downward(self) -> Iterator[tuple[slice, slice]]:
        """(a level, the level before it), from depth 1 down."""
        for depth in range(1, len(self.bounds) - 1):
            above, start, end = (int(bound) for bound in self.bounds[depth - 1 : depth + 2])
            yield slice(start, end), slice(above, start)

    def upward(self) -> Iterator[tuple[slice, slice]]:
        """(a level, the level before it), from the deepest level up."""
        yield from reversed(list(self.downward()))


def path_sums(levels: Levels, values: Float64) -> Float64:
    """For each row, the sum of `values` (K,) from its tree's root down to it, itself included.

    On trees of one turn that is `values` itself, not a copy.
    """
    if levels.flat:
        return values
    sums = values[levels.order]
    for level, before in levels.downward():
        sums[level] += sums[before][levels.above[level]]
    return _in_table_order(levels, sums)


def subtree_sums(levels: Levels, values: Float64, shares: Float64 | None = None) -> Float64:
    """For each row, the sum of `values` (K,) over it and all its descendants.

    With `shares` (K,) a row's sum goes into its parent's multiplied by its share. On trees of one
    turn that is `values` itself, not a copy.
    """
    if levels.flat:
        return values
    sums = values[levels.order]
    passed = None if shares is None else shares[levels.order]
    for level, before in levels.upward():
        width = before.stop - before.start
        given = sums[level] if passed is None else passed[level] * sums[level]
        sums[before] += np.bincount(levels.above[level], given, width)
    return _in_table_order(levels, sums)


def _in_table_order(levels: Levels, sums: Float64) -> Float64:
    result = np.empty_like(sums)
    result[levels.order] = sums
    return result


def trajectory_sums(table: TurnTable, levels: Levels, values: Float64) -> Float64:
    """For each leaf (L,), the sum of `values` (K,) along its path from the root.

    Where every turn is a trajectory that is `values` itself, not a copy.
    """
    sums = path_sums(levels, values)
    return sums if len(table.leaf_turn) == len(sums) else sums[table.leaf_turn]


def at_leaves(table: TurnTable, values: Float64) -> Float64:
    """A column (K,) that is `values` (L,) in the leaves' rows and 0 elsewhere.

    Where every turn is a leaf that is `values` itself, not a copy.
    """
    if len(values) == len(table.parent):
        return values
    column = np.zeros(len(table.parent))
    column[table.leaf_turn] = values
    return column

"""Credit: GRPO over 100,000 rows, and trees of a million turns, beside floors measured here.

    python benchmarks/credit.py [--rows 100000] [--turns 1000000] [--repeat 9]

The floor of GRPO is the least that computes group statistics in float64: sums of the returns and
their squares by group (`bincount`), gathered again. The floor of tree credit is one pass over the
turns in each direction: parents' values gathered, and children's values added to parents', by a
single gather and a single `bincount` as if the tree had one level. Goals (PERFORMANCE.md): GRPO
at most 2 times its floor; tree credit linear in the turns (twice the turns, at most 2.2 times the
seconds) and independent of the depth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit import ArpoCredit, GrpoCredit, TurnTable, assign


def chains(rows: int, *, group_size: int = 8) -> TurnTable:
    """Groups of `group_size` trajectories of one turn each, rewards 0 or 1."""
    return repeated(np.full(group_size, ROOT), rows // group_size)


def binary_tree(depth: int) -> np.ndarray:
    """Parents of a tree that forks at every turn, `depth` turns deep."""
    return np.array([ROOT, *((node - 1) // 2 for node in range(1, 2**depth - 1))])


def comb(turns: int) -> np.ndarray:
    """Parents of a chain with a one-turn branch at each turn: as deep as half its turns."""
    spine = [ROOT, *range(turns // 2 - 1)]
    return np.array(spine + list(range(turns // 2)))


def repeated(parents: np.ndarray, groups: int) -> TurnTable:
    """A table of `groups` groups, each one tree with these `parents`, rewards 0 or 1 at leaves."""
    size = len(parents)
    depth = np.zeros(size, np.int64)
    for node, parent in enumerate(parents):
        depth[node] = 0 if parent == ROOT else depth[parent] + 1
    leaves = np.setdiff1d(np.arange(size), parents)
    base = np.arange(groups)[:, None] * size
    leaf_turn = (leaves + base).ravel()
    reward = np.zeros(size * groups)
    reward[leaf_turn] = np.random.default_rng(0).integers(0, 2, len(leaf_turn))
    return TurnTable(
        group=np.repeat(np.arange(groups), size),
        tree=np.repeat(np.arange(groups), size),
        parent=np.where(parents == ROOT, ROOT, parents + base).ravel(),
        depth=np.tile(depth, groups),
        reward=reward,
        tokens=np.full(size * groups, 64),
        state=np.arange(size * groups) // 4,
        leaf_turn=leaf_turn,
        leaf_group=np.repeat(np.arange(groups), len(leaves)),
        leaf_truncated=np.zeros(len(leaf_turn), bool),
        n_groups=groups,
    )


def grpo_floor(table: TurnTable) -> Float64:
    """Group statistics and nothing else: no paths, no weights, no status, no float trap."""
    group, value = table.leaf_group, table.reward[table.leaf_turn]
    size = np.bincount(group)
    mean = np.bincount(group, value) / size
    deviation = value - mean[group]
    spread = np.sqrt(np.bincount(group, deviation**2) / (size - 1))
    return deviation / (spread[group] + 1e-6)


def tree_floor(table: TurnTable) -> Float64:
    """One gather down and one addition up over all turns."""
    parent = np.maximum(table.parent, 0)
    returns = table.reward + table.reward[parent]
    return np.bincount(parent, returns, len(parent))


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Processor seconds of the fastest of `repeat` runs: others may be using this machine."""
    taken = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    soft, hard = ArpoCredit(), ArpoCredit(attribution="hard")

    rows = chains(options.rows)
    floor = seconds(lambda: grpo_floor(rows), options.repeat)
    compared = seconds(lambda: GrpoCredit().compare(rows), options.repeat)
    whole = seconds(lambda: assign(rows, GrpoCredit()), options.repeat)
    print(f"GRPO, {options.rows:,} rows: floor {1e3 * floor:.1f} ms")
    print(f"  advantages {1e3 * compared:.1f} ms, {compared / floor:.2f} x the floor")
    print(f"  with weights and credit {1e3 * whole:.1f} ms, {whole / floor:.2f} x the floor")

    shapes = {"binary, depth 6": binary_tree(6), "comb, depth 16": comb(32)}
    shapes |= {"comb, depth 1,000": comb(2000), "chain, depth 5,000": np.arange(-1, 4999)}
    for name, parents in shapes.items():
        halves = [repeated(parents, n // len(parents)) for n in (options.turns // 2, options.turns)]
        floor = seconds(lambda: tree_floor(halves[1]), options.repeat)  # noqa: B023
        print(f"trees ({name}), {options.turns:,} turns: floor {1e3 * floor:.0f} ms")
        for method in (soft, hard):
            half, full = (
                seconds(lambda: assign(table, method), options.repeat)  # noqa: B023
                for table in halves
            )
            print(
                f"  {method.attribution}: {full:.3f} s, {full / floor:.1f} x the floor; "
                f"{full / half:.2f} x the seconds of half as many turns"
            )


if __name__ == "__main__":
    main()

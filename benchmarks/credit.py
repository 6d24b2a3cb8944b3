"""Credit: GRPO over 100,000 rows, and every method over a million turns, beside floors and loops.

    python benchmarks/credit.py [--rows 100000] [--turns 1000000] [--loop 20000] [--repeat 3]

Processor seconds, the least of `--repeat` runs. The floor of GRPO is the least that computes group
statistics in float64: sums of the returns and their squares by group (`bincount`), gathered again.
Every method of the union `AnyCredit` is run by `assign` (weights and denominators included) on
groups of eight chains of ten turns and on binary trees of depth 6, at half the turns and at all of
them; `peak` is the most memory that it held beside the table. The depth of trees is varied for
methods that need one number for each node. The loops are the definitions in plain Python, over
`--loop` turns.

Goals (PERFORMANCE.md): GRPO, weights and credit included, at most 2 times its floor; every method
linear (twice the turns, twice the seconds); at a million turns GiGPO at most 0.45 s, and methods of
trajectories and turns at most 1 GB; credit of trees independent of their depth.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from statistics import fmean, pstdev, stdev
from typing import get_args

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit import (
    AnyCredit,
    ArpoCredit,
    At2poCredit,
    GigpoCredit,
    GrpoCredit,
    SpoCredit,
    TreeRlCredit,
    TurnTable,
    assign,
)
from agentrl.credit.aggregate import CreditMethod

TOKENS = 4
"""Of every turn: some methods look at each, and what they cost is theirs."""


def chains(rows: int, *, group_size: int = 8) -> TurnTable:
    """Groups of `group_size` trajectories of one turn each, rewards 0 or 1."""
    return repeated(np.full(group_size, ROOT), rows // group_size)


def eight_chains(turns: int) -> np.ndarray:
    """Parents of eight chains of `turns` turns."""
    starts = np.arange(8)[:, None] * turns
    return np.concatenate([np.full((8, 1), ROOT), starts + np.arange(turns - 1)], axis=1).ravel()


def binary_tree(depth: int) -> np.ndarray:
    """Parents of a tree that forks at every turn, `depth` turns deep."""
    return np.array([ROOT, *((node - 1) // 2 for node in range(1, 2**depth - 1))])


def comb(turns: int) -> np.ndarray:
    """Parents of a chain with a one-turn branch at each turn: as deep as half its turns."""
    spine = [ROOT, *range(turns // 2 - 1)]
    return np.array(spine + list(range(turns // 2)))


def repeated(parents: np.ndarray, groups: int) -> TurnTable:
    """A table of `groups` groups, each one tree with these `parents`, rewards 0 or 1 at leaves.

    Four turns of a group, wherever they stand, act from one state.
    """
    size = len(parents)
    depth = np.zeros(size, np.int64)
    for node, parent in enumerate(parents):
        depth[node] = 0 if parent == ROOT else depth[parent] + 1
    leaves = np.setdiff1d(np.arange(size), parents)
    base = np.arange(groups)[:, None] * size
    leaf_turn = (leaves + base).ravel()
    rng = np.random.default_rng(0)
    reward = np.zeros(size * groups)
    reward[leaf_turn] = rng.integers(0, 2, len(leaf_turn))
    logprobs = -rng.exponential(0.3, size * groups * TOKENS).astype(np.float32)
    return TurnTable(
        group=np.repeat(np.arange(groups), size),
        tree=np.repeat(np.arange(groups), size),
        parent=np.where(parents == ROOT, ROOT, parents + base).ravel(),
        depth=np.tile(depth, groups),
        reward=reward,
        tokens=np.full(size * groups, TOKENS),
        state=(rng.permutation(size) // 4 + base).ravel(),
        leaf_turn=leaf_turn,
        leaf_group=np.repeat(np.arange(groups), len(leaves)),
        leaf_truncated=np.zeros(len(leaf_turn), bool),
        n_groups=groups,
        logprobs=logprobs,
        entropies=-logprobs,
        values=rng.random(len(logprobs)),
        bootstrap=np.zeros(len(leaf_turn)),
        logit_norms=rng.random(len(logprobs)),
    )


def grpo_floor(table: TurnTable) -> Float64:
    """Group statistics and nothing else: no paths, no weights, no status, no float trap."""
    group, value = table.leaf_group, table.reward[table.leaf_turn]
    size = np.bincount(group)
    mean = np.bincount(group, value) / size
    deviation = value - mean[group]
    spread = np.sqrt(np.bincount(group, deviation**2) / (size - 1))
    return deviation / (spread[group] + 1e-6)


# -- the definitions as loops ----------------------------------------------------------------------


def z(value: float, others: list[float], spread: Callable[[list[float]], float] = stdev) -> float:
    """`value` beside `others`, 0 where there is nothing to compare."""
    return (value - fmean(others)) / (spread(others) + 1e-6) if len(others) > 1 else 0.0


def paths_of(table: TurnTable) -> list[list[int]]:
    """Every trajectory's turns, the last one first."""
    parent, paths = table.parent.tolist(), []
    for turn in table.leaf_turn.tolist():
        path = [turn]
        while parent[path[-1]] != ROOT:
            path.append(parent[path[-1]])
        paths.append(path)
    return paths


def grpo_loop(table: TurnTable) -> dict[int, float]:
    """The sum of the advantages of each turn's trajectories."""
    paths, group, reward = paths_of(table), table.leaf_group.tolist(), table.reward.tolist()
    returns = [sum(reward[turn] for turn in path) for path in paths]
    by_group, worth = defaultdict(list), defaultdict(float)
    for leaf, value in enumerate(returns):
        by_group[group[leaf]].append(value)
    for leaf, path in enumerate(paths):
        advantage = z(returns[leaf], by_group[group[leaf]])
        for turn in path:
            worth[turn] += advantage
    return worth


def gigpo_loop(table: TurnTable) -> dict[int, float]:
    """The same, with the advantage of each step among those from its state."""
    reward, state = table.reward.tolist(), table.state.tolist()
    worth, by_state, steps = grpo_loop(table), defaultdict(list), []
    for path in paths_of(table):
        value = 0.0
        for turn in path:
            value = reward[turn] + 0.95 * value
            by_state[state[turn]].append(value)
            steps.append((turn, value))
    for turn, value in steps:
        worth[turn] += z(value, by_state[state[turn]])
    return worth


def values_loop(table: TurnTable) -> dict[int, float]:
    """AT2PO's mean over children times the trajectories of each turn, a node at a time."""
    paths, group, reward = paths_of(table), table.leaf_group.tolist(), table.reward.tolist()
    parent, children = table.parent.tolist(), defaultdict(list)
    by_group, value, leaves = defaultdict(list), {}, defaultdict(int)
    for turn, above in enumerate(parent):
        children[above].append(turn)
    returns = [sum(reward[turn] for turn in path) for path in paths]
    for leaf, path in enumerate(paths):
        by_group[group[leaf]].append(returns[leaf])
        for turn in path:
            leaves[turn] += 1
    for leaf, path in enumerate(paths):
        value[path[0]] = z(returns[leaf], by_group[group[leaf]], pstdev)
    for turn in reversed(range(len(parent))):
        if children[turn]:
            value[turn] = fmean(value[child] for child in children[turn])
    return {turn: leaves[turn] * worth for turn, worth in value.items()}


LOOPS = (
    (GrpoCredit(), grpo_loop),
    (GigpoCredit(), gigpo_loop),
    (At2poCredit(node_value="children"), values_loop),
)


# -- measuring -------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Processor seconds of the fastest of `repeat` runs: others may be using this machine."""
    taken = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def peak_mb(work: Callable[[], object]) -> float:
    """The most memory in MB that `work` held at once."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def compare_with_floor(rows: int, repeat: int) -> None:
    table = chains(rows)
    # Once a large array was freed the allocator keeps pages, as it does in a process that trains.
    np.ones(4_000_000).sum()
    works = (
        lambda: grpo_floor(table),
        lambda: GrpoCredit().compare(table),
        lambda: assign(table, GrpoCredit()),
    )
    # In turns, so that what else runs meanwhile slows all three.
    taken = [[seconds(work, 1) for work in works] for _ in range(repeat)]
    floor, compared, whole = (min(column) for column in zip(*taken, strict=True))
    print(f"GRPO, {rows:,} rows: floor {1e3 * floor:.1f} ms")
    print(f"  advantages {1e3 * compared:.1f} ms, {compared / floor:.2f} x the floor")
    print(f"  with weights and credit {1e3 * whole:.1f} ms, {whole / floor:.2f} x the floor")


def every_method(turns: int, repeat: int) -> None:
    shapes = {"8 chains of 10": eight_chains(10), "binary, depth 6": binary_tree(6)}
    print(f"{turns:,} turns: seconds, ratio to half as many, peak MB; {', '.join(shapes)}")
    tables = {
        name: [repeated(parents, n // len(parents)) for n in (turns // 2, turns)]
        for name, parents in shapes.items()
    }
    for cls in get_args(get_args(AnyCredit)[0]):
        method, cells = cls(), []
        for halves in tables.values():
            half, full = (seconds(_assigning(table, method), repeat) for table in halves)
            peak = peak_mb(_assigning(halves[1], method))
            cells.append(f"{full:6.3f} s {full / half:5.2f} x {peak:6.0f} MB")
        print(f"  {method.type:14} {'   '.join(cells)}")


def by_depth(turns: int, repeat: int) -> None:
    shapes = {"depth 16": comb(32), "depth 1,000": comb(2000), "depth 5,000": comb(10_000)}
    methods = (GrpoCredit(), ArpoCredit(attribution="hard"), At2poCredit(), TreeRlCredit())
    print(f"{turns:,} turns in combs of {', '.join(shapes)}: seconds")
    tables = [repeated(parents, turns // len(parents)) for parents in shapes.values()]
    for method in (*methods, SpoCredit()):
        taken = [seconds(_assigning(table, method), repeat) for table in tables]
        print(f"  {method.type:14} {'  '.join(f'{one:.3f}' for one in taken)}")


def beside_loops(turns: int, repeat: int) -> None:
    parents = binary_tree(6)
    table = repeated(parents, turns // len(parents))
    print(f"{turns:,} turns in binary trees of depth 6, beside a plain Python loop")
    for method, loop in LOOPS:
        credit = assign(table, method).credit
        wanted = loop(table)
        differing = max(
            abs(one - wanted[turn])
            for turn, one in enumerate((credit.positive + credit.negative).tolist())
        )
        slow = seconds(lambda: loop(table), 1)  # noqa: B023
        fast = seconds(_assigning(table, method), repeat)
        print(
            f"  {method.type:14} loop {slow:.3f} s, {slow / fast:.0f} x ours; largest difference "
            f"{differing:.0e}"
        )


def _assigning(table: TurnTable, method: CreditMethod) -> Callable[[], object]:
    return lambda: assign(table, method)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--loop", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    compare_with_floor(options.rows, 20 * options.repeat)
    every_method(options.turns, options.repeat)
    by_depth(options.turns, options.repeat)
    beside_loops(options.loop, options.repeat)


if __name__ == "__main__":
    main()

"""How far a credit method's expected gradient is from the true one, by counting every group.

    python benchmarks/turn_statistics_bias.py [--tasks 40] [--size 4]

The tasks are `agentrl.testing.tiny_task`: at most three turns, a policy and rewards drawn by seed.
All groups of `--size` trajectories that can be sampled are listed with their probabilities, so the
mean of an estimate and its spread are exact: no sampling, no error bars but those over tasks. The
floor is the true gradient, in the same listing: its scale is 1 and its angle 0.

Printed for each method, as the median over tasks [5 %, 95 %]: `scale`, the part of the mean along
the true gradient, over the true gradient's length; `angle` between them in degrees (above 90 the
expected step makes the policy worse); `noise`, the estimate's standard deviation over the length
of its mean. First with trajectories of exactly three turns, then of one to three.

Then where credit lands on a task in which only the second turn matters: the share of |net credit|
(positive + negative, what a gradient carries at an importance ratio of 1) on second turns' tokens,
for the shapes of `SHAPES`. A critic's values are exact, or a table learned from 300 other
trajectories (`agentrl.testing.state_values`). docs/credit_bias.md says what follows.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit import (
    ArpoCredit,
    At2poCredit,
    BilevelGaeCredit,
    GaeCredit,
    GigpoCredit,
    GrpoCredit,
    HgpoCredit,
    MtGrpoCredit,
    ReinforcePPCredit,
    RlooCredit,
    SpoCredit,
    TreeGrpoCredit,
    TreePoCredit,
    TreeRlCredit,
    TurnGaeCredit,
    TurnGrpoCredit,
    TurnTable,
    assign,
)
from agentrl.credit.aggregate import CreditMethod
from agentrl.credit.values import ValueBaseline
from agentrl.testing.state_values import state_values, with_state_values
from agentrl.testing.tiny_task import TinyTask
from agentrl.testing.trees import second_turn_groups

METHODS: dict[str, CreditMethod] = {
    "grpo": GrpoCredit(),
    "grpo, scale none": GrpoCredit(scale="none"),
    "rloo": RlooCredit(),
    "turn_grpo, steps": TurnGrpoCredit(),
    "turn_grpo, steps, scale none": TurnGrpoCredit(scale="none"),
    "turn_grpo, turn": TurnGrpoCredit(baseline="turn"),
    "turn_grpo, turn, scale none": TurnGrpoCredit(baseline="turn", scale="none"),
    "turn_grpo, leave_one_out": TurnGrpoCredit(baseline="leave_one_out", scale="none"),
    "turn_grpo, leave_one_out, raw": TurnGrpoCredit(
        baseline="leave_one_out", scale="none", singleton="raw"
    ),
    "mt_grpo": MtGrpoCredit(),
    "mt_grpo, scale none": MtGrpoCredit(scale="none"),
    "gigpo, gamma 1": GigpoCredit(gamma=1.0),
    "gigpo, gamma 1, scale none": GigpoCredit(gamma=1.0, scale="none"),
}

LANDING: dict[str, CreditMethod] = {
    "grpo": GrpoCredit(),
    "rloo": RlooCredit(),
    "reinforce_pp": ReinforcePPCredit(),
    "arpo": ArpoCredit(),
    "tree_grpo": TreeGrpoCredit(),
    "tree_grpo, intra": TreeGrpoCredit(terms="intra"),
    "at2po": At2poCredit(),
    "tree_rl": TreeRlCredit(),
    "tree_po": TreePoCredit(),
    "spo": SpoCredit(),
    "gigpo": GigpoCredit(),
    "hgpo": HgpoCredit(),
    "mt_grpo": MtGrpoCredit(),
    "turn_grpo, steps": TurnGrpoCredit(),
    "turn_grpo, turn": TurnGrpoCredit(baseline="turn"),
    "turn_grpo, leave_one_out": TurnGrpoCredit(baseline="leave_one_out", scale="none"),
    "turn_grpo, steps, gamma 0": TurnGrpoCredit(gamma=0.0),
    "turn_grpo, turn, gamma 0": TurnGrpoCredit(baseline="turn", gamma=0.0),
    **{
        f"{cls().type}, lam {lam:g}": cls(lam=lam)
        for cls in (GaeCredit, TurnGaeCredit, BilevelGaeCredit)
        for lam in (1.0, 0.95, 0.0)
    },
}

SHAPES = {
    "1 tree, 2 arms": {"groups": 1000, "trees": 1, "arms": 2},
    "4 trees, 2 arms": {"groups": 250, "trees": 4, "arms": 2},
    "6 trees, 6 arms": {"groups": 60, "trees": 6, "arms": 6},
    "8 chains": {"groups": 250, "trees": 8, "arms": 1},
    "8 chains, one turn more": {"groups": 250, "trees": 8, "arms": 1, "closing": 1},
}
"""What a group is (`second_turn_groups`); first turns lead to one of three states."""


def second_turn_share(table: TurnTable, method: CreditMethod) -> str:
    """Part of |net credit| on the tokens of second turns, in per cent; - where there is none."""
    credit = assign(table, method).credit.at_turns(table)
    worth = table.tokens * np.abs(credit.positive + credit.negative)
    return f"{100 * worth[table.depth == 1].sum() / worth.sum():.0f}" if worth.any() else "-"


def where_credit_lands() -> None:
    """Print the share of each method and shape."""
    print(f"per cent of |net credit| on the second turn: {'; '.join(SHAPES)}")
    print("of methods with a critic: with exact values / with values learned elsewhere")
    exact = {"first": 0.5, "room-0": 0.5, "room-1": 0.5, "room-2": 0.5, "closing": 0.0}
    other = second_turn_groups(1, groups=300, trees=1, arms=1, rooms=3, closing=1)
    critics = [exact, state_values(other)]
    made = [second_turn_groups(0, rooms=3, **shape) for shape in SHAPES.values()]
    for name, method in LANDING.items():
        cells = []
        for groups in made:
            tables = [TurnTable.of(groups, with_tokens=method.needs_tokens)]
            if isinstance(method, ValueBaseline):
                tables = [with_state_values(groups, values) for values in critics]
            cells.append(" / ".join(second_turn_share(table, method) for table in tables))
        print(f"{name:30}", *(f"{cell:>9}" for cell in cells))


def measure(method: CreditMethod, task: TinyTask, size: int) -> tuple[float, float, float]:
    """Scale, angle in degrees and noise of `method` on `task`."""
    true, found = task.gradient(), task.estimate(method, size)
    along = float((found.mean * true).sum())
    length, truth = float(np.linalg.norm(found.mean)), float(np.linalg.norm(true))
    cosine = min(1.0, max(-1.0, along / (length * truth)))
    return along / truth**2, float(np.degrees(np.arccos(cosine))), found.spread / length


def spread(values: Float64) -> str:
    """Median and [5 %, 95 %]."""
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:6.2f} [{low:6.2f}, {high:6.2f}]"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=40, help="tasks, by seed")
    parser.add_argument("--size", type=int, default=4, help="trajectories in a group")
    args = parser.parse_args()
    started = time.monotonic()
    for title, actions, varied in [("three turns", 2, False), ("one to three turns", 3, True)]:
        tasks = [TinyTask.random(s, actions=actions, varied=varied) for s in range(args.tasks)]
        print(f"{title}, groups of {args.size}, {args.tasks} tasks")
        print(f"{'':30}  {'scale':^24}  {'angle':^24}  {'noise':^24}  worse")
        for name, method in METHODS.items():
            rows = np.array([measure(method, task, args.size) for task in tasks])
            worse = f"{100 * np.mean(rows[:, 1] > 90):3.0f} %"
            print(f"{name:30}", *(spread(column) for column in rows.T), worse, sep="  ")
    where_credit_lands()
    print(f"{time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()

"""Branching samplers beside independent chains, at equal budgets of tokens and of tool calls.

    python benchmarks/samplers.py --seeds 0 1 2 --tokens 250000 --out runs/samplers
    python benchmarks/samplers.py --recipes arpo_code tree_grpo_code grpo_code --score correct

Runs each recipe once for each seed until it has generated so many tokens, evaluating every few
iterations on the same unseen tasks. A curve is read off at a budget by linear interpolation
between its evaluations: at the tokens asked for, and at the tool calls that the thriftiest run
has made. The last recipe is the control that the others are compared with. A run that is in the
folder already is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentrl.trainer.metrics import read_metrics


class Curve(NamedTuple):
    """Accuracy at each evaluation of one run, and what had been spent by then."""

    tokens: list[float]
    calls: list[float]
    accuracy: list[float]
    trajectories: float

    def at(self, spent: list[float], budget: float) -> float:
        """Accuracy when `spent` (one of the columns) reached `budget`."""
        return float(np.interp(budget, spent, self.accuracy))


def play(recipe: str, seed: int, options: argparse.Namespace) -> Curve:
    """Run `recipe` unless it ran before; its curve."""
    folder = options.out / f"{recipe}-seed{seed}"
    score = f"eval/{options.score}_mean"
    if not (folder / "result.json").exists():
        settings = [
            f"seed={seed}",
            "train.iterations=100000",
            f"train.max_generated_tokens={options.tokens}",
            f"eval.every={options.every}",
            "log.trees=0",
        ]
        command = [sys.executable, "-m", "agentrl", "run", recipe, *settings, "--out", str(folder)]
        subprocess.run(command, check=True)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if score in row]
    return Curve(
        [row.get("budget/generated_tokens", 0.0) for row in rows],
        [row.get("budget/tool_calls", 0.0) for row in rows],
        [100 * row[score] for row in rows],
        rows[-1]["budget/trajectories"],
    )


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):5.1f} ± {deviation:3.1f}"


def show(curves: dict[str, list[Curve]], options: argparse.Namespace) -> None:
    """The table, and what each recipe spent."""
    calls = min(curve.calls[-1] for several in curves.values() for curve in several)
    marks = [(f"{part} of the tokens", "tokens", part * options.tokens) for part in (0.25, 0.5, 1)]
    marks += [(f"{part} of the tool calls", "calls", part * calls) for part in (0.25, 0.5, 1)]
    *others, control = curves
    print(f"\n{options.score} in % on unseen tasks, mean ± sd over seeds {options.seeds}")
    print(f"all tokens: {options.tokens}, all tool calls: {calls:.0f}\n")
    heads = [*curves, *(f"{other} - {control} by seed" for other in others)]
    print("| at | " + " | ".join(heads) + " |")
    print("| --- " * (len(heads) + 1) + "|")
    starts = [spread([curve.accuracy[0] for curve in several]) for several in curves.values()]
    print("| the start | " + " | ".join([*starts, *("" for _ in others)]) + " |")
    for name, column, budget in marks:
        values = {
            recipe: [curve.at(getattr(curve, column), budget) for curve in several]
            for recipe, several in curves.items()
        }
        cells = [spread(value) for value in values.values()]
        for other in others:
            pairs = zip(values[other], values[control], strict=True)
            cells.append(", ".join(f"{a - b:+.1f}" for a, b in pairs))
        print(f"| {name} | " + " | ".join(cells) + " |")
    for recipe, several in curves.items():
        used = [[c.tokens[-1], c.calls[-1], c.trajectories] for c in several]
        tokens, tool_calls, trajectories = np.mean(used, axis=0)
        print(
            f"\n{recipe}: {trajectories:.0f} trajectories, {tokens / trajectories:.1f} generated "
            f"tokens and {tool_calls / trajectories:.2f} tool calls each"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/samplers"))
    parser.add_argument("--recipes", nargs="+", default=["arpo_search", "grpo_search"])
    parser.add_argument("--score", default="em", help="the reward component that is evaluated")
    options = parser.parse_args()
    curves = {
        recipe: [play(recipe, seed, options) for seed in options.seeds]
        for recipe in options.recipes
    }
    show(curves, options)
    table = {recipe: [curve._asdict() for curve in several] for recipe, several in curves.items()}
    (options.out / "curves.json").write_text(json.dumps(table))


if __name__ == "__main__":
    main()

"""ARPO's branching beside independent chains, at equal budgets of tokens and of tool calls.

    python benchmarks/samplers.py --seeds 0 1 2 --tokens 250000 --out runs/samplers

Runs each recipe once for each seed until it has generated so many tokens, evaluating every few
iterations on the same unseen tasks. A curve is read off at a budget by linear interpolation
between its evaluations: at the tokens asked for, and at the tool calls that the thriftiest run
has made. A run that is in the folder already is not run again.
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

RECIPES = ("arpo_search", "grpo_search")


class Curve(NamedTuple):
    """Accuracy at each evaluation of one run, and what had been spent by then."""

    tokens: list[float]
    calls: list[float]
    accuracy: list[float]
    trajectories: float

    def at(self, spent: list[float], budget: float) -> float:
        """Accuracy when `spent` (one of the columns) reached `budget`."""
        return float(np.interp(budget, spent, self.accuracy))


def play(recipe: str, seed: int, tokens: int, every: int, out: Path) -> Curve:
    """Run `recipe` unless it ran before; its curve."""
    folder = out / f"{recipe}-seed{seed}"
    if not (folder / "result.json").exists():
        settings = [
            f"seed={seed}",
            "train.iterations=100000",
            f"train.max_generated_tokens={tokens}",
            f"eval.every={every}",
            "log.trees=0",
        ]
        command = [sys.executable, "-m", "agentrl", "run", recipe, *settings, "--out", str(folder)]
        subprocess.run(command, check=True)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "eval/em_mean" in row]
    return Curve(
        [row.get("budget/generated_tokens", 0.0) for row in rows],
        [row.get("budget/tool_calls", 0.0) for row in rows],
        [100 * row["eval/em_mean"] for row in rows],
        rows[-1]["budget/trajectories"],
    )


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):5.1f} ± {deviation:3.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/samplers"))
    options = parser.parse_args()
    curves = {
        recipe: [
            play(recipe, seed, options.tokens, options.every, options.out) for seed in options.seeds
        ]
        for recipe in RECIPES
    }
    calls = min(curve.calls[-1] for several in curves.values() for curve in several)
    marks = [(f"{part} of the tokens", "tokens", part * options.tokens) for part in (0.25, 0.5, 1)]
    marks += [(f"{part} of the tool calls", "calls", part * calls) for part in (0.25, 0.5, 1)]
    print(f"\nexact match in % on unseen tasks, mean ± sd over seeds {options.seeds}")
    print(f"all tokens: {options.tokens}, all tool calls: {calls:.0f}\n")
    print("| at | " + " | ".join(RECIPES) + " | difference by seed |")
    print("| --- " * (len(RECIPES) + 2) + "|")
    starts = [[curve.accuracy[0] for curve in curves[recipe]] for recipe in RECIPES]
    print("| the start | " + " | ".join(spread(values) for values in starts) + " | |")
    for name, column, budget in marks:
        values = [
            [curve.at(getattr(curve, column), budget) for curve in curves[recipe]]
            for recipe in RECIPES
        ]
        differences = ", ".join(f"{a - b:+.1f}" for a, b in zip(*values, strict=True))
        cells = " | ".join(spread(value) for value in values)
        print(f"| {name} | {cells} | {differences} |")
    for recipe in RECIPES:
        used = [[c.tokens[-1], c.calls[-1], c.trajectories] for c in curves[recipe]]
        tokens, tool_calls, trajectories = np.mean(used, axis=0)
        print(
            f"\n{recipe}: {trajectories:.0f} trajectories, {tokens / trajectories:.1f} generated "
            f"tokens and {tool_calls / trajectories:.2f} tool calls each"
        )
    table = {recipe: [curve._asdict() for curve in several] for recipe, several in curves.items()}
    (options.out / "curves.json").write_text(json.dumps(table))


if __name__ == "__main__":
    main()

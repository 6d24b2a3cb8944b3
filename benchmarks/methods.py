"""Every method on the search questions at one budget of tokens, beside a control in nothing else.

    python benchmarks/methods.py --seeds 0 1 2 --out runs/methods
    python benchmarks/methods.py --only spo_search tree_po_search --seeds 0 1 2 3 4

Runs the recipes that stop at 75,000 generated tokens, and GRPO as their control: with one update an
iteration, and with four where a method is about the ratio that only further updates move from 1.
Prints the tables of docs/methods_on_search.md. A run that is in the folder is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from agentrl.evals.runs import Run, read_run
from agentrl.recipe.load import load
from agentrl.recipe.source import shipped_recipes

TOKENS = 75_000
CONTROL = "grpo_search"
BUDGET = ("train.iterations=200", f"train.max_generated_tokens={TOKENS}", "eval.every=5")
"""The control's. Evaluated often: pictures read its curve between evaluations."""


class Kind(NamedTuple):
    """Recipes that have one control, which makes so many updates an iteration."""

    title: str
    forks: bool
    updates: int


KINDS = (
    Kind("Trees", forks=True, updates=1),
    Kind("Chains", forks=False, updates=1),
    Kind("Chains, four updates an iteration", forks=False, updates=4),
)


def methods(kind: Kind) -> list[str]:
    """The shipped recipes of this kind with the budget, in alphabetical order."""
    found = []
    for name in shipped_recipes():
        if name.endswith("_search") and not name.startswith("sft"):
            recipe = load(name)
            train, forks = recipe.train, recipe.sampler.needs_fork
            own = (train.max_generated_tokens, forks, train.updates_per_iteration)
            if own == (TOKENS, kind.forks, kind.updates):
                found.append(name)
    return found


def play(recipe: str, seed: int, out: Path, settings: Sequence[str]) -> Run:
    """Run `recipe` unless it ran before; its curve."""
    folder = out / f"{recipe}{''.join(f'-{one}' for one in settings)}-seed{seed}"
    if not (folder / "result.json").exists():
        own = [f"seed={seed}", "log.trees=0", *settings, *(BUDGET if recipe == CONTROL else ())]
        command = [sys.executable, "-m", "agentrl", "run", recipe, *own, "--out", str(folder)]
        subprocess.run(command, check=True)
    return read_run(folder, score="em")


def table(names: Sequence[str], runs: dict[str, dict[int, Run]]) -> Iterator[str]:
    """A line for each of `names`, the first of which is the control."""
    yield "| recipe | em | beside the control, by seed | trajectories | tool calls |"
    yield "| --- | --- | --- | --- | --- |"
    control = runs[names[0]]
    for name in names:
        mine = runs[name]
        scores = {seed: _end(run) for seed, run in mine.items()}
        beside = [
            f"{score - _end(control[seed]):+.1f}"
            for seed, score in scores.items()
            if mine is not control
        ]
        spent = [
            f"{fmean(run.spent[what][-1] for run in mine.values()):,.0f}"
            for what in ("trajectories", "tool_calls")
        ]
        link = f"[`{name}`](../recipes/{name}.yaml)"
        cells = [link, _spread([*scores.values()]), ", ".join(beside), *spent]
        yield f"| {' | '.join(cells)} |"


def _end(run: Run) -> float:
    """The score in % after all tokens, which every run passes by less than an iteration's."""
    return 100 * run.at("generated_tokens", TOKENS)


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--only", nargs="+", help="these recipes, beside their controls")
    options = parser.parse_args()
    for kind in KINDS:
        names = [name for name in methods(kind) if not options.only or name in options.only]
        if not names:
            continue
        more = [f"train.updates_per_iteration={kind.updates}"] if kind.updates > 1 else []
        runs = {
            name: {
                seed: play(name, seed, options.out, more if name == CONTROL else [])
                for seed in options.seeds
            }
            for name in (CONTROL, *names)
        }
        print(f"\n## {kind.title}\n")
        print("\n".join(table(list(runs), runs)), flush=True)


if __name__ == "__main__":
    main()

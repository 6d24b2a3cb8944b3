"""Branching samplers beside independent chains, at equal budgets of tokens and of tool calls.

    python benchmarks/samplers.py --seeds 0 1 2 --tokens 250000 --out runs/samplers
    python benchmarks/samplers.py --recipes arpo_code tree_grpo_code grpo_code --score correct

Runs each recipe once for each seed until it has generated so many tokens, evaluating every few
iterations on the same unseen tasks, and compares them as `agentrl compare` does: paired by seed, at
equal budgets. The last recipe is the control that the others are compared with. A run that is in
the folder already is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from agentrl.evals.runs import Run, read_run


def play(recipe: str, seed: int, options: argparse.Namespace) -> Run:
    """Run `recipe` unless it ran before; its curve."""
    folder = options.out / f"{recipe}-seed{seed}"
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
    return read_run(folder, score=options.score)


def curve(run: Run) -> dict[str, object]:
    """What `benchmarks/curves.py` draws."""
    return {
        "tokens": run.spent["generated_tokens"],
        "calls": run.spent["tool_calls"],
        "accuracy": [100 * value for value in run.values],
        "trajectories": run.spent["trajectories"][-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/samplers"))
    parser.add_argument("--recipes", nargs="+", default=["arpo_search", "grpo_search"])
    parser.add_argument("--score", default="em", help="the reward component that is evaluated")
    options = parser.parse_args()
    runs = {
        recipe: [play(recipe, seed, options) for seed in options.seeds]
        for recipe in options.recipes
    }
    curves = {recipe: [curve(run) for run in several] for recipe, several in runs.items()}
    (options.out / "curves.json").write_text(json.dumps(curves))
    *others, control = ([run.folder for run in several] for several in runs.values())
    folders = [folder for several in others for folder in several]
    command = ["agentrl", "compare", *folders, "--against", *control, "--score", options.score]
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()

"""The same recipe with sampling that waits for each update, and with sampling that goes on.

    python benchmarks/async_mode.py [RECIPE] [KEY=VALUE ...] [--lags 0 1 2 4] [--seeds 0 1 2]

Every run is `agentrl run RECIPE KEY=VALUE... train.max_lag=LAG seed=SEED` in a process of its own,
seeds in turn and within a seed all lags, so that a slow hour slows all. Seconds of an iteration are
means over all but the first, evaluations left out; the ratio is to the first of the lags, seed by
seed. `waited` is the share of that time in which the learner waited for groups, `lag` the share of
the trained tokens that are 0, 1, ... versions old, `mixed` the turns of an iteration in the middle
of which new weights came, `|log ratio|` the mean difference of the log-probabilities of the policy
and of what sampled the tokens. The score is `eval.score` of the last evaluation, with its 95 %
interval.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics


class Seen(NamedTuple):
    """What one run showed."""

    seconds: float
    waited: float
    shares: list[float]
    lag_max: float
    mixed: float
    difference: float
    score: tuple[float, float, float]


def play(recipe: str, overrides: list[str], out: Path) -> None:
    """Run the recipe to its end; its output is kept beside its folder."""
    command = [sys.executable, "-m", "agentrl", "run", recipe, *overrides, "--out", str(out)]
    log = out.with_suffix(".log")
    with log.open("w") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")


def seen(out: Path, *, max_lag: int, score: str) -> Seen:
    """What the run in `out` left in its metrics."""
    rows = read_metrics(out / "metrics.jsonl")
    later = rows[2:]

    def mean(name: str, among: list[dict[str, Any]] = later) -> float:
        known = [row[name] for row in among if row.get(name) is not None]
        return float(np.mean(known)) if known else float("nan")

    seconds = mean("time/iteration_seconds")
    evaluated = [row for row in rows if row.get(f"eval/{score}_mean") is not None]
    last = evaluated[-1] if evaluated else {}
    return Seen(
        seconds=seconds,
        waited=mean("time/wait_seconds") / seconds,
        shares=[mean(f"policy/lag_{lag}_share") for lag in range(max_lag + 1)],
        lag_max=max(row["policy/lag_max"] for row in later),
        mixed=mean("policy/mixed_turns"),
        difference=mean("train/behavior_difference"),
        score=tuple(last.get(f"eval/{score}_{what}", float("nan")) for what in SCORE),  # type: ignore[arg-type]
    )


SCORE = ("mean", "low", "high")


def report(max_lag: int, seed: int, one: Seen, floor: float) -> str:
    """One line of the table."""
    shares = " ".join(f"{100 * share:.0f}" for share in one.shares)
    mean, low, high = one.score
    return (
        f"{max_lag:7d} {seed:4d} {one.seconds:11.2f} {one.seconds / floor:6.2f} "
        f"{100 * one.waited:7.0f} % {shares:>16s} {one.lag_max:4.0f} {one.mixed:6.1f} "
        f"{one.difference:11.4f}   {mean:.3f} [{low:.3f}, {high:.3f}]"
    )


def main() -> None:
    """Run everything and print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="grpo_search")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_intermixed_args()
    score = load(options.recipe, options.overrides).eval.score
    print(
        "max_lag seed  s/iteration  ratio   waited  lag shares (%)    max  mixed  |log ratio|"
        f"   {score}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            floor = 0.0
            for max_lag in options.lags:
                out = Path(folder) / f"lag{max_lag}-seed{seed}"
                play(
                    options.recipe,
                    [*options.overrides, f"train.max_lag={max_lag}", f"seed={seed}"],
                    out,
                )
                one = seen(out, max_lag=max_lag, score=score)
                floor = floor or one.seconds
                print(report(max_lag, seed, one, floor), flush=True)


if __name__ == "__main__":
    main()

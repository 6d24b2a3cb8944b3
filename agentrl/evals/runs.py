"""Training runs side by side: by seed, at their ends and at equal budgets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from agentrl.core.errors import DataError
from agentrl.core.settings import Settings
from agentrl.evals.results import Estimate
from agentrl.evals.scores import estimate
from agentrl.evals.statistics import (
    Interval,
    Values,
    sign_flip_p,
    student_interval,
    unpaired_difference,
)

_PARTS = (0.25, 0.5, 1.0)
_BUDGETS = ("generated_tokens", "tool_calls", "trajectories")


class Run(NamedTuple):
    """A run's learning curve: the score at each evaluation, and what had been spent by then."""

    folder: str
    recipe: str
    seed: int
    score: str
    iterations: list[int]
    values: list[float]
    spent: dict[str, list[float]]

    def at(self, budget: str, amount: float) -> float:
        """The score when so much of `budget` was spent, on the line between two evaluations."""
        return float(np.interp(amount, self.spent[budget], self.values))


class RunGroup(Settings):
    """Runs of one recipe: their seeds, and what they spent in the mean."""

    name: str
    folders: tuple[str, ...]
    seeds: tuple[int, ...]
    spent: dict[str, float]


class Mark(Settings):
    """The score at one point of training: of each group by seed, and each against the control.

    `at` says where: the start, a budget that every run has reached, the last evaluation, or each
    run's best one (which is picked after the fact, so it flatters whatever was evaluated most).
    `differences` and `p` are by group, of the seeds in common; where there are none the seeds are
    compared as independent and there is no p.
    """

    at: str
    values: dict[str, dict[int, float]]
    means: dict[str, Estimate]
    differences: dict[str, Estimate]
    p: dict[str, float | None]


class RunComparison(Settings):
    """Groups of runs against the control, the last of them."""

    score: str
    control: str
    groups: tuple[RunGroup, ...]
    marks: tuple[Mark, ...]
    warnings: tuple[str, ...] = ()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; a last line cut by a kill is left out, any other is an error."""
    rows: list[dict[str, Any]] = []
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}:{number}: not a JSON line ({error})") from error
    return rows


def read_run(folder: Path, *, score: str = "") -> Run:
    """The run in `folder`, by the score that its recipe evaluates (or `score`).

    Raises DataError where the folder is no run's, or has no evaluation with that score.
    """
    metrics, recipe_file = folder / "metrics.jsonl", folder / "recipe.yaml"
    for path in (metrics, recipe_file):
        if not path.is_file():
            raise DataError(f"{folder} holds no training run (it has no {path.name})")
    try:
        recipe = yaml.safe_load(recipe_file.read_text())
        name, seed = str(recipe["name"]), int(recipe["seed"])
        wanted = score or str(recipe["eval"]["score"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{recipe_file}: not a run's recipe ({error!r})") from error
    key = f"eval/{wanted}_mean"
    rows = [row for row in read_metrics(metrics) if row.get(key) is not None]
    if not rows:
        raise DataError(f"{metrics}: no evaluation with the score {wanted!r}")
    return Run(
        folder=str(folder),
        recipe=name,
        seed=seed,
        score=wanted,
        iterations=[int(row["iteration"]) for row in rows],
        values=[float(row[key]) for row in rows],
        spent={
            budget: [float(row.get(f"budget/{budget}") or 0.0) for row in rows]
            for budget in _BUDGETS
        },
    )


def compare_runs(groups: Sequence[Sequence[Path]], *, score: str = "") -> RunComparison:
    """Groups of runs, one for each recipe and in it one run for each seed, against the last group.

    Raises:
        DataError: fewer than two groups, an empty one, two runs of a seed in one group, or runs
            that are evaluated by different scores.
    """
    if len(groups) < 2 or not all(groups):
        raise DataError(
            "a comparison needs two groups of runs: `agentrl compare runs/new-* --against "
            "runs/old-*`"
        )
    read = [[read_run(folder, score=score) for folder in folders] for folders in groups]
    names = _names(read)
    scores = sorted({run.score for runs in read for run in runs})
    if len(scores) > 1:
        raise DataError(
            f"these runs are evaluated by different scores ({', '.join(scores)}); choose one with "
            "--score"
        )
    for name, runs in zip(names, read, strict=True):
        seeds = [run.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            raise DataError(
                f"{name}: two runs of one seed ({', '.join(map(str, sorted(seeds)))}); name one of "
                "each"
            )
    named = dict(zip(names, read, strict=True))
    return RunComparison(
        score=scores[0],
        control=names[-1],
        groups=tuple(_group(name, runs) for name, runs in named.items()),
        marks=tuple(_mark(at, named, value) for at, value in _points(named)),
        warnings=tuple(_warnings(named)),
    )


def group_runs(folders: Sequence[Path]) -> list[list[Path]]:
    """`folders` by the name of their recipe, in the order in which the names come."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        found.setdefault(read_run(folder).recipe, []).append(folder)
    return list(found.values())


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each group: its recipe's, or its first folder where that is no name of its own."""
    names = ["+".join(dict.fromkeys(run.recipe for run in runs)) for runs in groups]
    if len(set(names)) == len(names):
        return names
    return [runs[0].folder for runs in groups]


def _group(name: str, runs: Sequence[Run]) -> RunGroup:
    return RunGroup(
        name=name,
        folders=tuple(run.folder for run in runs),
        seeds=tuple(run.seed for run in runs),
        spent={b: float(np.mean([run.spent[b][-1] for run in runs])) for b in _BUDGETS},
    )


def _points(named: dict[str, list[Run]]) -> list[tuple[str, Callable[[Run], float]]]:
    """Where the runs are compared: each a name, and what reads the score off a run."""
    runs = [run for several in named.values() for run in several]
    found: list[tuple[str, Callable[[Run], float]]] = [("the start", lambda run: run.values[0])]
    for budget in ("generated_tokens", "tool_calls"):
        most = min(run.spent[budget][-1] for run in runs)
        for part in _PARTS if most > 0 else ():
            at = f"{part * most:,.0f} {budget.replace('_', ' ')}"
            found.append((at, partial(_at, budget=budget, amount=part * most)))
    return [*found, ("the end", lambda run: run.values[-1]), ("the best", lambda r: max(r.values))]


def _at(run: Run, *, budget: str, amount: float) -> float:
    return run.at(budget, amount)


def _mark(at: str, named: dict[str, list[Run]], value: Callable[[Run], float]) -> Mark:
    values = {name: {run.seed: value(run) for run in runs} for name, runs in named.items()}
    *others, control = values
    pairs = {other: _paired(values[control], values[other]) for other in others}
    return Mark(
        at=at,
        values=values,
        means={name: estimate(student_interval(list(v.values()))) for name, v in values.items()},
        differences={other: estimate(interval) for other, (interval, _) in pairs.items()},
        p={other: p for other, (_, p) in pairs.items()},
    )


def _paired(control: dict[int, float], other: dict[int, float]) -> tuple[Interval, float | None]:
    """Difference by seed, and its p; of all seeds, as independent, where none is in common."""
    shared = sorted(control.keys() & other.keys())
    if not shared:
        return unpaired_difference(list(control.values()), list(other.values())), None
    differences: Values = [other[seed] - control[seed] for seed in shared]
    p = sign_flip_p(differences) if len(shared) > 1 else None
    return student_interval(differences), p


def _warnings(named: dict[str, list[Run]]) -> list[str]:
    *others, control = named
    seeds = {name: {run.seed for run in runs} for name, runs in named.items()}
    found = []
    for other in others:
        shared = seeds[other] & seeds[control]
        if not shared:
            found.append(f"{other} and {control} have no seed in common: compared as independent")
        elif shared != seeds[other] | seeds[control]:
            found.append(
                f"{other} and {control}: only the seeds {', '.join(map(str, sorted(shared)))} "
                "are in both, and in their difference"
            )
        if len(shared) in range(1, 6):
            found.append(
                f"of {len(shared)} seeds the test's smallest p is {2 / 2 ** len(shared):g}; the "
                "intervals hold the spread of seeds, not that of tasks"
            )
    return list(dict.fromkeys(found))

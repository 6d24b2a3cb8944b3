"""The command `agentrl compare`: evaluations, or training runs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from agentrl.core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from agentrl.evals.compare import EvalComparison, ScoreDifference, SuiteComparison
    from agentrl.evals.results import Estimate
    from agentrl.evals.runs import Mark, RunComparison

AGAINST = "--against"
SETTINGS = {"ignore_unknown_options": True}
"""`--against` takes all folders that a shell makes of a pattern, which no option of Click's can."""

_FILE_WIDTH = 240


def compare(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR... [--against DIR...]",
            help="Folders of evaluations, or of training runs (several seeds of one recipe are "
            "one group). They are compared with those after --against, or else with the first.",
        ),
    ],
    *,
    score: Annotated[
        str, typer.Option(help="Another score than the one that decides; of runs, instead of it.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="All numbers as JSON.")] = False,
) -> None:
    """Differences on the same tasks or seeds, with intervals, p values and what was spent."""
    from agentrl.evals.compare import compare_evaluations
    from agentrl.evals.runs import compare_runs

    ours, controls = _parted(folders)
    kinds = {folder: _kind(folder) for folder in [*ours, *controls]}
    if len(set(kinds.values())) > 1:
        raise DataError(
            "evaluations and training runs cannot be compared with each other: "
            + ", ".join(f"{folder} is {kind}" for folder, kind in kinds.items())
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_FILE_WIDTH)  # no number is cut off in a file
    if "an evaluation" in kinds.values():
        if len(controls) > 1:
            raise RecipeError(f"evaluations are compared with one; {AGAINST} got {len(controls)}")
        named = (score,) if score else ()
        found = compare_evaluations([*controls, *ours], scores=named)
        console.print_json(found.model_dump_json()) if json else _show_suites(found, console)
        return
    runs = compare_runs(_groups(ours, controls), score=score)
    console.print_json(runs.model_dump_json()) if json else _show_runs(runs, console)


def _parted(arguments: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The folders before and after `--against`."""
    unknown = [one for one in arguments if one.startswith("-") and one != AGAINST]
    if unknown or arguments.count(AGAINST) > 1:
        what = unknown[0] if unknown else f"a second {AGAINST}"
        raise RecipeError(
            f"no such option: {what}; write `agentrl compare DIR... [{AGAINST} DIR...] "
            "[--score NAME] [--json]`"
        )
    if AGAINST not in arguments:
        return [Path(one) for one in arguments], []
    cut = list(arguments).index(AGAINST)
    before, after = (
        [Path(one) for one in part] for part in (arguments[:cut], arguments[cut + 1 :])
    )
    if not before or not after:
        raise RecipeError(f"name folders on both sides of {AGAINST}")
    return before, after


def _kind(folder: Path) -> str:
    if (folder / "plan.json").is_file():
        return "an evaluation"
    if (folder / "metrics.jsonl").is_file():
        return "a training run"
    raise DataError(
        f"{folder} holds neither an evaluation (plan.json) nor a training run (metrics.jsonl)"
    )


def _groups(ours: list[Path], controls: list[Path]) -> list[list[Path]]:
    from agentrl.evals.runs import group_runs

    if controls:
        return [*group_runs(ours), controls]
    first, *others = group_runs(ours)
    if not others:  # one recipe: each run is a group of its own
        first, *others = [[one] for one in ours]
    return [*others, first]


# -- evaluations ----------------------------------------------------------------------------------


def _show_suites(found: EvalComparison, console: Console) -> None:
    for folder, policy in found.policies.items():
        console.print(f"{folder}: {policy}", markup=False)
    for suite in found.suites:
        if suite.tasks:
            console.print(_scores_table(suite, several=len(found.suites) > 1))
            console.print(_spending_table(suite))
        else:
            said = f"{suite.suite}: {suite.other} against {suite.first}: no task in common"
            console.print(said, style="yellow", markup=False)
        for line in _told(suite):
            console.print(line, markup=False)
    for line in found.missing:
        console.print(f"not compared: {line}", style="yellow", markup=False)
    if len(found.suites) > 1:
        console.print(
            "p by the sign-flip test; corrected (Holm) over the scores that decide, for "
            f"{len(found.suites)} comparisons",
            markup=False,
        )


def _scores_table(suite: SuiteComparison, *, several: bool) -> Table:
    title = f"{suite.suite}: {suite.other} against {suite.first}"
    table = Table(title=title, title_justify="left", title_style="bold")
    corrected = ("corrected",) if several else ()
    for head in ("score", "first", "other", "difference", "p", *corrected, "tasks needed"):
        table.add_column(head, justify="left" if head == "score" else "right")
    for one in suite.differences:
        table.add_row(*_score_row(one, several=several))
    return table


def _score_row(one: ScoreDifference, *, several: bool) -> tuple[str, ...]:
    bounds = (one.first.value, one.other.value)
    share = one.score != "reward" and all(b is not None and 0 <= b <= 1 for b in bounds)
    return (
        one.score,
        _shown(one.first, share=share),
        _shown(one.other, share=share),
        _shown(one.difference, share=share, sign="+"),
        _p(one.p),
        *((_p(one.p_corrected),) if several else ()),
        "–" if one.tasks_needed is None else f"{one.tasks_needed:,}",
    )


def _spending_table(suite: SuiteComparison) -> Table:
    table = Table(title="spent per sample", title_justify="left")
    for head in ("amount", "first", "other", "other / first"):
        table.add_column(head, justify="left" if head == "amount" else "right")
    for one in suite.spending:
        ratio = _shown(one.ratio, share=False, digits=2)
        table.add_row(one.amount, f"{one.first:,.3g}", f"{one.other:,.3g}", ratio)
    return table


def _told(suite: SuiteComparison) -> list[str]:
    """What stands below the tables: how much was compared, and what to beware of."""
    lines = [
        f"{suite.tasks} tasks in common, {suite.only_first} only in {suite.first}, "
        f"{suite.only_other} only in {suite.other}; {suite.samples_first} and "
        f"{suite.samples_other} scored samples"
    ]
    if suite.failures_first or suite.failures_other:
        lines.append(
            f"lost to failures, and in no number: {suite.failures_first} samples of {suite.first}, "
            f"{suite.failures_other} of {suite.other}"
        )
    if suite.differences and suite.differences[0].detectable is not None:
        first = suite.differences[0]
        lines.append(
            f"these tasks see a difference of {first.detectable:.3f} in {first.score} with 80 % "
            "power; `tasks needed` is for the difference that was found"
        )
    return [*lines, *(f"beware: {one}" for one in suite.warnings)]


# -- runs -----------------------------------------------------------------------------------------


def _show_runs(found: RunComparison, console: Console) -> None:
    others = [group.name for group in found.groups[:-1]]
    title = f"{found.score} against {found.control}, by seed"
    table = Table(title=title, title_justify="left", title_style="bold")
    heads = ["at", found.control]
    for other in others:
        heads += [other, f"{other} - {found.control}", "p"]
    for head in heads:
        table.add_column(head, justify="left" if head == "at" else "right")
    values = [v for mark in found.marks for group in mark.values.values() for v in group.values()]
    share = found.score != "reward" and all(0 <= value <= 1 for value in values)
    for mark in found.marks:
        table.add_row(*_mark_row(mark, found.control, others, share=share))
    console.print(table)
    for group in found.groups:
        spent = ", ".join(f"{v:,.0f} {name.replace('_', ' ')}" for name, v in group.spent.items())
        seeds = ", ".join(map(str, group.seeds))
        console.print(f"{group.name}: seeds {seeds}; in all {spent} in the mean", markup=False)
    for line in found.warnings:
        console.print(f"beware: {line}", markup=False)


def _mark_row(mark: Mark, control: str, others: Sequence[str], *, share: bool) -> list[str]:
    row = [mark.at, _shown(mark.means[control], share=share)]
    for other in others:
        row += [
            _shown(mark.means[other], share=share),
            _shown(mark.differences[other], share=share, sign="+"),
            _p(mark.p[other]),
        ]
    return row


def _shown(estimate: Estimate, *, share: bool, digits: int = 3, sign: str = "") -> str:
    """A value with its interval, in per cent where it is a share."""
    if estimate.value is None:
        return "–"
    factor, places = (100, 1) if share else (1, digits)
    text = f"{factor * estimate.value:{sign}.{places}f}" + (" %" if share and not sign else "")
    if estimate.low is None or estimate.high is None:
        return text
    low, high = (f"{factor * one:{sign}.{places}f}" for one in (estimate.low, estimate.high))
    return f"{text} \\[{low}, {high}]"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"

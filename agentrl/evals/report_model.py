"""What a report says, as text and plots: the page and the Markdown table are made from it."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.report_differences import Difference, Differences, differences
from agentrl.evals.report_examples import Example, examples
from agentrl.evals.report_numbers import ABSENT, duration, estimate_text, quantity, value_text
from agentrl.evals.report_plots import (
    CurvePlot,
    IntervalPlot,
    Segment,
    bar,
    curve_plot,
    interval_plot,
)
from agentrl.evals.results import Estimate, Results, SuiteResult
from agentrl.evals.suite import Reference
from agentrl.evals.suites import SUITES

_FAMILY = re.compile(r"(.+[@^])(\d+)")
_CURVES = {
    "pass@": ("pass@k: solved by at least one of k samples", "k"),
    "pass^": ("pass^k: solved by each of k samples", "k"),
    "solved_by_turn@": ("Solved within so many turns", "turns"),
    "succ@": ("Solved within so many answers", "answers"),
}
_ITS_MEAN = ("pass@1", "accuracy")
"""What papers call the mean of the score that decides."""
HUES = 8


class Evaluated(NamedTuple):
    """One evaluation in a report, named by a letter and by its policy."""

    letter: str
    name: str
    folder: Path
    results: Results

    def part(self, tag: str) -> SuiteResult | None:
        """Its results on one suite."""
        return next((one for one in self.results.suites if one.suite == tag), None)

    def planned(self, tag: str) -> PlannedSuite | None:
        """How it was to play one suite."""
        return next((one for one in self.results.plan.suites if one.tag == tag), None)


class Table(NamedTuple):
    """A table of text; the first column names the rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Row(NamedTuple):
    """One evaluation on one suite in one line."""

    letter: str
    hue: int
    policy: str
    score: str
    interval: str
    tasks: int
    samples: int
    planned: int
    scored: int
    failed: int
    missing: int
    failures: str
    if_wrong: str
    how: str
    cost: str
    counts: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One suite."""

    tag: str
    title: str
    score: str
    rows: tuple[Row, ...]
    cautions: tuple[str, ...]
    plot: IntervalPlot | None
    curves: tuple[CurvePlot, ...]
    differences: tuple[Difference, ...]
    references: Table
    measures: Table
    amounts: Table
    stops: Table
    examples: tuple[tuple[str, tuple[Example, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a report says. `refused` is why evaluations are not compared, if so."""

    title: str
    policies: tuple[tuple[str, int, str], ...]
    overview: Table
    refused: str
    sections: tuple[Section, ...]
    provenance: Table


def build(evaluations: Sequence[Evaluated]) -> Report:
    """The report of `evaluations`, suites in the order in which they are first met."""
    tags = list(dict.fromkeys(s.suite for one in evaluations for s in one.results.suites))
    shown = [
        examples(one.folder / "samples.jsonl", {s.suite: s.score for s in one.results.suites})
        for one in evaluations
    ]
    paired = differences({str(one.folder): one.letter for one in evaluations})
    sections = tuple(
        _section(tag, evaluations, [found.get(tag, ()) for found in shown], paired) for tag in tags
    )
    names = ", ".join(dict.fromkeys(_policy(one.results.plan) for one in evaluations))
    return Report(
        title=f"Evaluation of {names}",
        policies=tuple((one.letter, n % HUES, one.name) for n, one in enumerate(evaluations)),
        overview=_overview(tags, evaluations),
        refused=paired.refused,
        sections=sections,
        provenance=_provenance(evaluations),
    )


def lettered(loaded: Iterable[tuple[Path, Results]]) -> list[Evaluated]:
    """Evaluations named A, B, ..., Z, A1, B1, ...; of one policy, by their folders too."""
    pairs, letters = list(loaded), string.ascii_uppercase
    names = [_policy(results.plan) for _, results in pairs]
    found = []
    for n, (folder, results) in enumerate(pairs):
        again = n // len(letters)
        letter = letters[n % len(letters)] + (str(again) if again else "")
        name = f"{names[n]}, {folder.name}" if names.count(names[n]) > 1 else names[n]
        found.append(Evaluated(letter, name, folder, results))
    return found


def _policy(plan: EvalPlan) -> str:
    """How the user named the policy; of a server, with the model that it was asked for."""
    model = getattr(plan.engine, "model", None) or plan.model
    return f"{model} at {plan.policy}" if "://" in plan.policy and model else plan.policy


def _overview(tags: Sequence[str], evaluations: Sequence[Evaluated]) -> Table:
    def cell(one: Evaluated, tag: str) -> str:
        part = one.part(tag)
        if part is None:
            return ABSENT
        failed, notes = sum(part.failures.values()), []
        if failed:
            notes.append(f"{failed} failed")
        if part.missing:
            notes.append(f"{part.missing} missing")
        text = estimate_text(part.score, part.estimates.get(part.score))
        return text + (f" ({', '.join(notes)})" if notes else "")

    head = ("suite", *(f"{one.letter}: {one.name}" for one in evaluations))
    return Table(head, tuple((tag, *(cell(one, tag) for one in evaluations)) for tag in tags))


def _section(
    tag: str,
    evaluations: Sequence[Evaluated],
    found: Sequence[tuple[Example, ...]],
    paired: Differences,
) -> Section:
    parts = [
        (n, one, part) for n, one in enumerate(evaluations) if (part := one.part(tag)) is not None
    ]
    score = parts[0][2].score
    suite = next((one for one in SUITES.values() if one.tag == tag), None)
    references = () if suite is None else suite.references
    rows = tuple(_row(n % HUES, one, part) for n, one, part in parts)
    return Section(
        tag=tag,
        title=next((p.title for _, _, p in parts if p.title), "" if suite is None else suite.title),
        score=score,
        rows=rows,
        cautions=(*_cautions(parts), *paired.warnings.get(tag, ())),
        plot=_plot(score, parts, references),
        curves=_curves(parts),
        differences=tuple(paired.by_suite.get(tag, ())),
        references=_published(references),
        measures=_measures(parts),
        amounts=_amounts(parts),
        stops=_stops(parts),
        examples=tuple(
            (one.letter, shown) for one, shown in zip(evaluations, found, strict=True) if shown
        ),
    )


Parts = Sequence[tuple[int, Evaluated, SuiteResult]]


def _row(hue: int, one: Evaluated, part: SuiteResult) -> Row:
    estimate = part.estimates.get(part.score)
    text = estimate_text(part.score, estimate)
    value, _, interval = text.partition(" [")
    planned, failed = one.planned(part.suite), sum(part.failures.values())
    counts = {"scored": part.scored, "failed": failed, "missing": part.missing}
    wrong = part.if_failures_were_wrong
    share = "%" in value
    return Row(
        letter=one.letter,
        hue=hue,
        policy=one.name,
        score=value,
        interval=f"[{interval}" if interval else "",
        tasks=part.tasks,
        samples=part.samples_per_task,
        planned=part.planned,
        scored=part.scored,
        failed=failed,
        missing=part.missing,
        failures=", ".join(f"{count} {kind}" for kind, count in sorted(part.failures.items())),
        if_wrong=value_text(wrong, share=share) if failed and wrong is not None else "",
        how="" if planned is None else _how(planned),
        cost="" if part.cost is None else quantity(part.cost),
        counts=bar(counts),
    )


def _how(planned: PlannedSuite) -> str:
    return (
        f"temperature {planned.temperature:g}, up to {planned.max_turns} turns of "
        f"{planned.max_tokens_per_turn:,} tokens"
    )


def _cautions(parts: Parts) -> tuple[str, ...]:
    """What a reader must know before comparing the rows."""
    said = []
    for _, one, part in parts:
        failed = sum(part.failures.values())
        if failed:
            said.append(
                f"{one.letter}: {failed} of {part.planned} samples were lost to failures and count "
                "as neither right nor wrong."
            )
        if part.missing:
            said.append(
                f"{one.letter}: {part.missing} of {part.planned} samples have not been played: "
                "the evaluation was stopped, or is still going on."
            )
        if part.unplanned:
            said.append(
                f"{one.letter}: {part.unplanned} samples are beyond the plan's number and count in "
                "nothing."
            )
    return tuple(said)


def _plot(score: str, parts: Parts, references: Sequence[Reference]) -> IntervalPlot | None:
    rows: list[tuple[str, int | None, Estimate]] = [
        (f"{one.letter}: {one.name}", n % HUES, part.estimates[part.score])
        for n, one, part in parts
        if part.score in part.estimates
    ]
    rows += [
        (one.policy, None, Estimate(value=one.value, tasks=0, method="none"))
        for one in references
        if one.metric in (score, *_ITS_MEAN)
    ]
    return interval_plot(score, rows)


def _published(references: Sequence[Reference]) -> Table:
    return Table(
        ("policy", "metric", "value", "source"),
        tuple(
            (
                one.policy,
                one.metric,
                value_text(one.value, share=one.metric != "reward" and 0.0 <= one.value <= 1.0),
                one.source,
            )
            for one in references
        ),
    )


def _curves(parts: Parts) -> tuple[CurvePlot, ...]:
    plots = []
    for family, (title, x_title) in _CURVES.items():
        lines = [(one.letter, n % HUES, _family(part.estimates, family)) for n, one, part in parts]
        plot = curve_plot(title, x_title, [line for line in lines if line[2]])
        if plot is not None:
            plots.append(plot)
    return tuple(plots)


def _family(estimates: Mapping[str, Estimate], family: str) -> dict[int, Estimate]:
    """The estimates `FAMILY` + number by their number."""
    found = ((_FAMILY.fullmatch(name), one) for name, one in estimates.items())
    return {int(m[2]): one for m, one in found if m is not None and m[1] == family}


def _measures(parts: Parts) -> Table:
    names = dict.fromkeys(name for _, _, part in parts for name in part.estimates)
    known = {
        name: [part.estimates[name] for _, _, part in parts if name in part.estimates]
        for name in names
    }
    return Table(
        ("measure", *(one.letter for _, one, _ in parts), "interval"),
        tuple(
            (
                name,
                *(
                    estimate_text(name, part.estimates.get(name), *known[name])
                    for _, _, part in parts
                ),
                ", ".join(dict.fromkeys(one.method for one in known[name])),
            )
            for name in names
        ),
    )


def _amounts(parts: Parts) -> Table:
    names = dict.fromkeys(name for _, _, part in parts for name in part.amounts)
    rows = []
    for name in names:
        for _, one, part in parts:
            found = part.amounts.get(name)
            if found is not None:
                values = (found.mean, found.median, found.p95, found.total)
                rows.append((name, one.letter, *(quantity(value) for value in values)))
    return Table(("per sample", "", "mean", "median", "95th percentile", "total"), tuple(rows))


def _stops(parts: Parts) -> Table:
    reasons = dict.fromkeys(name for _, _, part in parts for name in sorted(part.stop_reasons))
    return Table(
        ("stop reason", *(one.letter for _, one, _ in parts)),
        tuple(
            (reason, *(f"{part.stop_reasons.get(reason, 0):,}" for _, _, part in parts))
            for reason in reasons
        ),
    )


def _provenance(evaluations: Sequence[Evaluated]) -> Table:
    columns = [_origin(one) for one in evaluations]
    names = dict.fromkeys(name for column in columns for name, text in column.items() if text)
    return Table(
        ("", *(one.letter for one in evaluations)),
        tuple((name, *(column.get(name) or ABSENT for column in columns)) for name in names),
    )


def _origin(one: Evaluated) -> dict[str, str]:
    plan, origin = one.results.plan, one.results.provenance
    engine = plan.engine.model_dump(mode="json", exclude_defaults=True, exclude={"type"})
    settings = ", ".join(f"{name}: {value}" for name, value in engine.items())
    price = plan.price
    return {
        "policy": plan.policy,
        "model": plan.model,
        "engine": plan.engine.type + (f" ({settings})" if settings else ""),
        "sampling": f"top_p {plan.rollout.sampling.top_p:g}, top_k {plan.rollout.sampling.top_k}",
        "seed": str(plan.seed),
        "price of a million tokens": (
            "" if price is None else f"{price.prompt:g} read, {price.generated:g} generated"
        ),
        "scored again": origin.rescored,
        "folder": one.folder.name,
        "command": origin.command,
        "started": origin.started,
        "ended": origin.ended,
        "took": duration(origin.seconds) + f" in {origin.sittings} sitting(s)",
        "agentrl": origin.agentrl + (f" at {origin.commit}" if origin.commit else ""),
        "python": origin.python,
        "platform": origin.platform,
        "packages": ", ".join(f"{name} {version}" for name, version in origin.packages.items()),
    }

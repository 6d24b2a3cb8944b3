"""The report as Markdown: the numbers, for a pull request or a paper's appendix."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentrl.evals.report_model import Report, Section, Table
from agentrl.evals.shown_text import visible

_SPECIAL = re.compile(r"([\\`*\[<|~$&]|(?<!\w)_|_(?!\w)|^[#+>-])")
_CELL = 300


def markdown(report: Report) -> str:
    """All tables of `report`; text that is not ours is escaped and cut."""
    lines = [f"# {escaped(report.title)}", ""]
    lines += _table(report.overview)
    if report.refused:
        lines += [f"No differences are shown: {escaped(report.refused)}", ""]
    for section in report.sections:
        lines += _section(section)
    lines += ["## What produced these results", ""]
    lines += _table(report.provenance)
    return "\n".join(lines).rstrip("\n") + "\n"


def escaped(text: str) -> str:
    """`text` in one line that Markdown shows as it is: no markup, link or table cell of its own."""
    short = text if len(text) <= _CELL else text[: _CELL - 1] + "…"
    return _SPECIAL.sub(r"\\\1", " ".join(visible(short).split()))


def _section(section: Section) -> Iterator[str]:
    title = f": {escaped(section.title)}" if section.title else ""
    yield from (f"## {escaped(section.tag)}{title}", "")
    rows = tuple(
        (
            row.letter,
            row.policy,
            f"{row.score} {row.interval}".strip(),
            f"{row.scored:,} of {row.planned:,}",
            f"{row.failed:,}" + (f" ({row.failures})" if row.failures else ""),
            f"{row.missing:,}",
            row.if_wrong,
            f"{row.tasks:,} tasks × {row.samples}; {row.how}",
            row.cost,
        )
        for row in section.rows
    )
    head = ("", "policy", section.score, "scored", "failed", "missing")
    more = ("if failures were wrong", "how", "cost")
    yield from _table(_without_empty(Table((*head, *more), rows)))
    for caution in section.cautions:
        yield f"- {escaped(caution)}"
    yield ""
    for difference in section.differences:
        yield f"- {escaped(f'{difference.title}: {difference.estimate}. {difference.verdict}')}"
    if section.differences:
        yield ""
    for table in (section.measures, section.amounts, section.stops):
        if table.rows:
            yield from _table(table)
    if section.references.rows:
        yield "Published values; prompts, limits and graders differ between papers."
        yield ""
        yield from _table(section.references)


def _without_empty(table: Table) -> Table:
    """`table` without the columns in which no row says anything."""
    kept = [n for n in range(len(table.head)) if n < 2 or any(row[n] for row in table.rows)]
    return Table(
        tuple(table.head[n] for n in kept),
        tuple(tuple(row[n] for n in kept) for row in table.rows),
    )


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(escaped(cell) for cell in table.head) + " |"
    yield "| " + " | ".join("---" for _ in table.head) + " |"
    for row in table.rows:
        yield "| " + " | ".join(escaped(cell) for cell in row) + " |"
    yield ""

"""The tables of docs/suites.md are made from the suites: `tests/test_suites_page.py --write`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from agentrl.evals.suite import Suite
from agentrl.evals.suites import SUITES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "suites.md"
MARK = "<!-- made by: python tests/test_suites_page.py --write -->\n"
HEAD = (
    "| suite | what | tasks | plays in | score | samples | hub | below `--data` |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def tables() -> str:
    """Every suite by family, then the exceptions."""
    return "\n".join((MARK, *_families(), *_published(), *_exceptions()))


def _families() -> Iterator[str]:
    for family, suites in groupby(SUITES.values(), key=lambda suite: suite.family):
        title = "Questions" if family == "qa" else family.replace("-", " ").capitalize()
        yield f"### {title}\n\n{HEAD}"
        yield from map(_row, suites)
        yield ""


def _row(suite: Suite) -> str:
    samples = f"{suite.samples}, T {suite.temperature:g}" if suite.temperature else "1"
    cells = (
        f"`{suite.tag}`",
        suite.title,
        "" if suite.size is None else f"{suite.size:,}",
        f"`{suite.env}`",
        f"`{suite.score}`",
        samples,
        "<br>".join(f"`{one.hub}`" for one in suite.rows.values() if one.hub),
        "<br>".join(f"`{one.file}`" for one in suite.rows.values() if one.file),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _published() -> Iterator[str]:
    yield "## Published values\n"
    yield "Of other people's runs, with prompts and limits of their own: a landmark, no baseline.\n"
    yield "| suite | policy | metric | value | from |\n| --- | --- | --- | --- | --- |"
    for suite in SUITES.values():
        for one in suite.references:
            value = f"{100 * one.value:.1f}"
            yield f"| `{suite.tag}` | {one.policy} | {one.metric} | {value} | {one.source} |"
    yield ""


def _exceptions() -> Iterator[str]:
    yield "## Known exceptions\n"
    yield "| suite | what | tasks | why |\n| --- | --- | --- | --- |"
    for suite in SUITES.values():
        for what, known in (
            ("gold fails", suite.gold_fails),
            ("spoiled gold solves it", suite.spoiled_solves),
            ("also in the training rows", suite.in_train),
        ):
            for why in dict.fromkeys(known.values()):
                ids = ", ".join(id_ for id_, reason in known.items() if reason == why)
                yield f"| `{suite.tag}` | {what} | {ids} | {why} |"
        if suite.unchecked:
            yield f"| `{suite.tag}` | nothing is played | all | {suite.unchecked} |"
    yield ""


def test_the_tables_are_those_of_the_suites() -> None:
    _, _, found = PAGE.read_text().partition(MARK)
    assert MARK + found == tables(), "run `python tests/test_suites_page.py --write`"


def test_every_suite_has_a_row_and_every_reference_its_source() -> None:
    text = tables()
    assert all(f"| `{suite.tag}` | {suite.title} |" in text for suite in SUITES.values())
    assert text.count("\n### ") == len({suite.family for suite in SUITES.values()})


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    before, _, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(before + tables())

"""The report: one self-contained page and a Markdown table for one or several evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agentrl.evals.folder import EvalFolder, write_whole
from agentrl.evals.report_markdown import markdown
from agentrl.evals.report_model import Report, build, lettered
from agentrl.evals.shown_text import encodable, visible

TEMPLATE = "report.html.jinja"


class ReportFiles(NamedTuple):
    """Where a report was written."""

    page: Path
    table: Path


def write_reports(folders: Sequence[Path], out: Path | None = None) -> ReportFiles:
    """Write the page and the table of the evaluations in `folders`.

    `out` is the page (`.html`; the table stands beside it with `.md`) or a folder that gets
    `report.html` and `report.md`; left out, it is the folder of the evaluation, or, of several,
    the working directory. Each file is written whole or not at all.

    Raises:
        DataError: a folder holds no evaluation, or one of another format.
    """
    report = build(lettered((folder, EvalFolder(folder).read_results()) for folder in folders))
    if out is None:
        out = folders[0] if len(folders) == 1 else Path()
    page = out / "report.html" if out.is_dir() else out
    table = page.with_suffix(".md")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, encodable(rendered(report)))
    write_whole(table, encodable(markdown(report)))
    return ReportFiles(page, table)


def rendered(report: Report) -> str:
    """The page: no script, nothing from elsewhere; every text escaped by the template engine."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.get_template(TEMPLATE).render(report=report).lstrip()


def _shown(value: object) -> object:
    """What the page prints for `value`: plain strings with every hidden character spelled out."""
    return visible(value) if type(value) is str else value

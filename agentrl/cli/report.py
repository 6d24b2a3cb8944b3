"""`agentrl report`: a page and a table for one or several evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of evaluations.")
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page, or a folder for both files; default the evaluation's folder, or the "
            "working directory for several."
        ),
    ] = None,
) -> None:
    """Write a page and a Markdown table of evaluations, several side by side."""
    from agentrl.evals.report import write_reports

    written = write_reports(folders, out)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{written.page} and {written.table}", markup=False)

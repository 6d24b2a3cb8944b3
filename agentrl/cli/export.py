"""`agentrl export`: evaluations in the formats of other people's tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Write evaluations for other people's tools.", no_args_is_help=True)


@app.callback()
def export() -> None:
    """Write evaluations for other people's tools."""


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an evaluation.")],
    *,
    out: Annotated[
        Path,
        typer.Option(help="A log (.eval or .json), or a folder that gets one for each suite."),
    ],
    suite: Annotated[str, typer.Option(help="The suite to export; default all of them.")] = "",
) -> None:
    """Write an evaluation as logs of inspect_ai, which `inspect view` opens."""
    from agentrl.evals.inspect_log import export_inspect

    console = Console(highlight=False, soft_wrap=True)
    for path in export_inspect(folder, out, suite=suite):
        console.print(str(path), markup=False)

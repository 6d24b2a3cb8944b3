"""`agentrl suite`: list, show and check the suites that `agentrl eval` knows."""

from __future__ import annotations

import asyncio
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentrl.cli.errors import Commands

if TYPE_CHECKING:
    from agentrl.evals.check import CheckReport
    from agentrl.evals.suite import Suite

app = typer.Typer(cls=Commands, help="List, show and check suites.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option(help="Folder that holds the rows; default the Hugging Face hub.")
]
_COLOURS = {"ok": "green", "known": "cyan", "note": "yellow", "skipped": "yellow", "fault": "red"}


@app.command("list")
def list_suites() -> None:
    """List every suite by family."""
    from agentrl.evals.suites import SUITES

    console = Console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("suite", "tasks", "environment", "score"):
        table.add_column(name, no_wrap=True)  # names are typed again: never shortened
    table.add_column("needs", overflow="fold")
    for family, suites in groupby(SUITES.values(), key=lambda suite: suite.family):
        table.add_section()
        table.add_row(f"[bold]{family}[/bold]")
        for suite in suites:
            table.add_row(
                escape(suite.tag),
                "" if suite.size is None else f"{suite.size:,}",
                escape(suite.env),
                escape(suite.score),
                escape(", ".join(suite.needs)),
            )
    console.print(table)
    console.print("agentrl suite show NAME says where rows come from and what is published of it")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A suite of `suite list`, or module:NAME.")],
    data: Data = None,
) -> None:
    """Show a suite: source, licence, rows, limits, a prompt, and the command that plays it."""
    from agentrl.evals.suites import find_suite

    suite, console = find_suite(name), Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{escape(suite.tag)}[/bold]  {escape(suite.title)}")
    for key, value in facts(suite):
        console.print(f"  [dim]{key:<13}[/dim]{escape(value)}")
    console.print("\nThe first task's prompt, as the policy reads it:\n")
    console.print(escape(_prompt(suite, data)))
    place = f" --data {data}" if data is not None else ""
    given = "".join(f" suite.args.{key}=..." for key in suite.given)
    console.print(f"\nagentrl eval {name}{escape(place)} --policy Qwen/Qwen3-0.6B{escape(given)}")


def facts(suite: Suite) -> list[tuple[str, str]]:
    """What `show` says of a suite, in its order; what a suite has not is left out."""
    settings = ", ".join(f"{key}={value}" for key, value in suite.args.items())
    tokens = f"{suite.max_tokens_per_turn:,} tokens a turn"
    times = f"{suite.samples} samples a task" if suite.samples > 1 else "one sample a task"
    rows = [
        ("source", suite.source),
        ("licence", suite.licence),
        ("environment", suite.env + (f" ({settings})" if settings else "")),
        ("split", suite.split),
        ("tasks", "" if suite.size is None else f"{suite.size:,}"),
        *(("hub", f"{setting}: {one.hub}") for setting, one in suite.rows.items() if one.hub),
        *(("--data", f"{setting}: {one.file}") for setting, one in suite.rows.items() if one.file),
        ("train rows", " or ".join(filter(None, suite.train or ()))),
        ("score", ", ".join((suite.score, *suite.also))),
        ("samples", f"{times}, temperature {suite.temperature:g}"),
        ("limits", f"turns: {suite.max_turns}, {tokens}"),
        *(
            ("published", f"{one.policy}: {one.metric} {100 * one.value:.1f} ({one.source})")
            for one in suite.references
        ),
        ("needs", ", ".join(suite.needs)),
        ("to be given", ", ".join(f"suite.args.{key}" for key in suite.given)),
        ("unchecked", suite.unchecked),
        *(("gold fails", f"{id_}: {reason}") for id_, reason in suite.gold_fails.items()),
        *(("solved wrong", f"{id_}: {why}") for id_, why in suite.spoiled_solves.items()),
        ("notes", suite.notes),
    ]
    return [(key, value) for key, value in rows if value]


def _prompt(suite: Suite, data: Path | None) -> str:
    from agentrl.core.errors import AgentRLError
    from agentrl.evals.check import first_prompt

    try:
        return asyncio.run(first_prompt(suite, data=data))
    except AgentRLError as error:
        return f"(not read: {error})"


@app.command()
def check(
    names: Annotated[list[str], typer.Argument(help="Suites of `suite list`, or module:NAME.")],
    data: Data = None,
    tasks: Annotated[
        int | None, typer.Option(help="How many tasks of each; default all.", min=1)
    ] = None,
    policy_free: Annotated[
        bool, typer.Option("--policy-free", help="Play nothing: rows, ids, prompts and limits.")
    ] = False,
) -> None:
    """Check that gold answers score 1 and wrong ones 0, and that rows are sound.

    Exit code 1 where a suite has a fault. What a suite lists as a known exception is shown.
    """
    from agentrl.evals.check import check_suite
    from agentrl.evals.suites import find_suite

    console, faulty = Console(soft_wrap=True, highlight=False), []
    for suite in [find_suite(name) for name in names]:
        with Console(stderr=True).status(f"{suite.tag}: reading the rows") as status:
            report = asyncio.run(
                check_suite(
                    suite, data=data, tasks=tasks, played=not policy_free, tell=status.update
                )
            )
        _tell(console, report)
        if report.faults:
            faulty.append(suite.tag)
    if faulty:
        console.print(f"[red]faults in {escape(', '.join(faulty))}[/red]")
        raise typer.Exit(1)


def _tell(console: Console, report: CheckReport) -> None:
    from agentrl.evals.check import RULES, named

    table = Table("", "", "", title=f"{report.suite}, tasks: {report.tasks:,}", show_header=False)
    for one in report.findings:
        about = f": {named(one.ids)}" if one.ids else ""
        table.add_row(
            f"[{_COLOURS[one.status]}]{one.status}[/]",
            RULES[one.rule],
            escape(one.told + about),
        )
    console.print(table)

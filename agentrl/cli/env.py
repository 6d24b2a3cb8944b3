"""`agentrl env`: write, list, check, play and time environments, without any policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentrl.cli.errors import Commands
from agentrl.cli.scaffold import Kind, write_package
from agentrl.core.env import Env, Observation, StepResult
from agentrl.core.errors import RecipeError, nearest
from agentrl.core.registry import env_table, make_env
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Image, Task
from agentrl.core.wrappers import Wrapper
from agentrl.testing import RULES, check_env
from agentrl.testing.speed import Spread, measure_env

app = typer.Typer(
    cls=Commands, help="Write, list, check, play and time environments.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(help='An id of `env list`, "module:Class" or "gym:EnvId".')]
Args = Annotated[
    list[str] | None, typer.Option("--arg", help="A setting of the environment, as key=value.")
]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="A name for the package, as in word_game.")],
    kind: Annotated[
        Kind, typer.Option(help="tools: typed functions and an answer; messages: reset and step.")
    ] = "tools",
    folder: Annotated[Path | None, typer.Option(help="Where to; default ./NAME.")] = None,
) -> None:
    """Write a package with an environment, its test and recipes, to change into your own."""
    console = Console(soft_wrap=True)
    target = folder or Path(name)
    written = write_package(target, name=name, kind=kind)
    for path in written:
        console.print(f"wrote {escape(str(path))}", highlight=False)
    path = next(one for one in written if one.name == "env.py")
    class_name = path.read_text(encoding="utf-8").partition("class ")[2].partition("(")[0]
    where = f"{name}.env:{class_name}"
    console.print(f"\nnow: cd {escape(str(target))}", highlight=False)
    for command in (f"agentrl env check {where}", f"agentrl env play {where}", "pytest"):
        console.print(f"     {command}", highlight=False)


@app.command("list")
def list_envs() -> None:
    """List the installed environments and the packages that bring them."""
    console, table = Console(), env_table()
    shown = Table("id", "class", "package")
    for id_, entries in sorted(table.entries.items()):
        for entry in entries:
            note = " (offered twice)" if len(entries) > 1 else ""
            shown.add_row(escape(id_), escape(entry.path), escape(entry.package + note))
    console.print(shown)
    for broken in table.broken:
        what = f"{broken.package} ({broken.entry_point}) could not be read: {broken.error}"
        console.print(f"[red]package {escape(what)}[/red]")


@app.command()
def check(id: Id, arg: Args = None) -> None:
    """Check an environment against its contract; exit code 1 where it breaks a rule."""
    console = Console(soft_wrap=True)
    settings = parsed_settings(arg or ())
    make_env(id, **settings)
    with Console(stderr=True).status(f"playing {id} in every way that its contract speaks of"):
        report = asyncio.run(check_env(lambda: make_env(id, **settings)))
    for rule in report.checked:
        console.print(f"[green]ok[/green]      {RULES[rule]}")
    for rule, reason in report.skipped:
        console.print(f"[yellow]skipped[/yellow] {RULES[rule]}: {escape(reason)}")
    console.print(f"{report.env} keeps its contract on {len(report.tasks)} tasks.")


@app.command()
def play(
    id: Id,
    split: Annotated[str, typer.Option(help="train or eval.")] = "train",
    task: Annotated[str, typer.Option(help="A task's id; the first one if not given.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the episode.")] = 0,
    images: Annotated[Path | None, typer.Option(help="Folder to save images to.")] = None,
    arg: Args = None,
) -> None:
    """Play an episode at the keyboard: you are the policy.

    One line is one action; end a line with a backslash to go on in the next.
    `:gold` plays the gold action, `:quit` (or the end of the input) leaves.
    """
    env = make_env(id, **parsed_settings(arg or ()))
    # The keyboard is read outside of the event loop, which would keep the first Ctrl-C to itself.
    with asyncio.Runner() as runner:
        _play(runner, env, _task(env, split, task), seed, images)


@app.command()
def bench(
    id: Id,
    seconds: Annotated[float, typer.Option(help="How long to play.", min=0.1)] = 5.0,
    concurrency: Annotated[int, typer.Option(help="Episodes at once.", min=1)] = 1,
    forks: Annotated[int, typer.Option(help="Forks to time.", min=1)] = 20,
    split: Annotated[str, typer.Option(help="train or eval.")] = "train",
    arg: Args = None,
) -> None:
    """Time an environment that its expert plays: steps per second, reset, step and fork."""
    console, settings = Console(soft_wrap=True), parsed_settings(arg or ())
    env = make_env(id, **settings)
    _task(env, split, "")
    with Console(stderr=True).status(f"playing {id} for {seconds:g} s"):
        found = asyncio.run(
            measure_env(
                lambda: make_env(id, **settings),
                tasks=env.tasks(split),
                seconds=seconds,
                concurrency=concurrency,
                forks=forks,
            )
        )
    console.print(
        f"{found.steps_per_second:,.0f} steps/s: {found.episodes} episodes of "
        f"{found.steps / found.episodes:.1f} steps in {found.seconds:.1f} s, {concurrency} at once",
        highlight=False,
    )
    table = Table("", "median ms", "p99 ms", "times")
    table.add_row("reset", *_milliseconds(found.reset))
    table.add_row("step", *_milliseconds(found.step))
    if found.fork.times:
        table.add_row(f"fork ({env.forkable})", *_milliseconds(found.fork))
    console.print(table)
    if not found.fork.times:
        console.print("forkable = 'no': samplers that branch refuse this environment")


def _milliseconds(spread: Spread) -> tuple[str, str, str]:
    return f"{1e3 * spread.median:.3f}", f"{1e3 * spread.p99:.3f}", str(spread.times)


def parsed_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from `key=value`, each value read as YAML; `RecipeError` where one is not."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RecipeError(f"--arg takes key=value, got {pair!r}")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--arg {key}: {value!r} is no YAML value: {error}") from error
    return settings


def _task(env: Env, split: str, wanted: str) -> Task:
    tasks = env.tasks(split)
    if not tasks:
        raise RecipeError(f"{env!r} has no tasks in split {split!r}; splits are train and eval")
    if not wanted:
        return tasks[0]
    for task in tasks:
        if task.id == wanted:
            return task
    close = nearest(wanted, (task.id for task in tasks))
    raise RecipeError(f"no task {wanted!r} among the {len(tasks)} of split {split!r}.{close}")


def _play(runner: asyncio.Runner, env: Env, task: Task, seed: int, images: Path | None) -> None:
    console = Console()
    seen: list[str] = []

    def show(observation: Observation) -> None:
        seen.append("\n".join(message.text for message in observation))
        _show(console, observation, images, turn=len(seen) - 1)

    inner = env.unwrapped if isinstance(env, Wrapper) else env
    console.print(f"[dim]task {escape(task.id)}, seed {seed}; :gold, :quit[/dim]")
    if isinstance(inner, ToolEnv):
        console.print(f"[dim]{escape(inner.call_format.instructions())}[/dim]")
    try:
        show(runner.run(env.reset(task, seed=seed)))
        turn, earned = 0, 0.0
        while True:
            action = _read(env, task, seen)
            if action is None:
                console.print(f"left after {turn} turns, return so far {earned:g}")
                return
            result = runner.run(env.step(action))
            turn, earned = turn + 1, earned + result.reward
            show(result.observation)
            _tell(console, result)
            if result.terminated or result.truncated:
                how = "terminated" if result.terminated else "truncated"
                console.print(f"{how} after {turn} turns, return {earned:g}")
                return
    finally:
        runner.run(env.close())


def _read(env: Env, task: Task, seen: Sequence[str]) -> str | None:
    lines: list[str] = []
    while True:
        try:
            line = input("... " if lines else "> ")
        except EOFError:
            return "\n".join(lines) if lines else None
        if not lines and line == ":quit":
            return None
        if not lines and line == ":gold":
            gold = env.expert_action(task, seen)
            if gold is not None:
                Console().print(escape(gold))
                return gold
            Console().print("[yellow]there is no gold action here[/yellow]")
            continue
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def _show(console: Console, observation: Observation, images: Path | None, *, turn: int) -> None:
    for number, message in enumerate(observation):
        console.print(f"[bold cyan]{message.role}[/bold cyan] {escape(message.text)}")
        for part in message.parts:
            if isinstance(part, Image):
                console.print(f"[dim]{_saved(part, images, f'{turn}-{number}')}[/dim]")


def _saved(image: Image, folder: Path | None, name: str) -> str:
    what = f"{image.media_type}, {len(image.data):,} bytes"
    if folder is None:
        return escape(f"[image: {what}; --images DIR saves it]")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{image.media_type.rpartition('/')[2]}"
    path.write_bytes(image.data)
    return escape(f"[image: {what}, saved to {path}]")


def _tell(console: Console, result: StepResult) -> None:
    for call in result.info.tool_calls:
        said = "ok" if call.ok else "refused"
        arguments = escape(str(dict(call.arguments)))
        console.print(f"[dim]tool {call.name} {arguments}: {said}, {call.seconds:.3f} s[/dim]")
    if result.info.malformed_calls:
        console.print(f"[yellow]malformed calls: {result.info.malformed_calls}[/yellow]")
    parts = ", ".join(f"{name} {value:g}" for name, value in result.info.rewards.items())
    console.print(f"[dim]reward {result.reward:g}{f' ({parts})' if parts else ''}[/dim]")

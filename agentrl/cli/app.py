"""The commands `agentrl run`, `sft`, `eval`, and the groups `recipe`, `env`, `serve`, `doctor`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import agentrl
from agentrl.cli import env, export, recipe, serve, suite
from agentrl.cli.compare import SETTINGS, compare
from agentrl.cli.doctor import doctor
from agentrl.cli.errors import Commands
from agentrl.cli.evaluate import evaluate, rescore
from agentrl.cli.report import report
from agentrl.cli.view import view

app = typer.Typer(
    name="agentrl",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Branching, multi-turn reinforcement learning of language-model agents.",
)
app.add_typer(recipe.app, name="recipe")
app.add_typer(env.app, name="env")
app.add_typer(serve.app, name="serve")
app.add_typer(export.app, name="export")
app.add_typer(suite.app, name="suite")

Recipe = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change, as in train.iterations=20.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME-DATE.")]

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def _version(asked: bool) -> None:
    if asked:
        Console().print(f"agentrl {agentrl.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the logs of vLLM, Ray and the others.")
    ] = False,
) -> None:
    """Branching, multi-turn reinforcement learning of language-model agents."""
    # Environments of the user's own lie in the working directory; appended, so that no folder of
    # theirs hides an installed package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    if not verbose:
        warnings.simplefilter("ignore")
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    if not Path("/dev/nvidiactl").exists():
        # Asked without it, DeepSpeed looks for every kind of accelerator and says what it missed.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


@app.command()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the run's newest checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Play two episodes through everything but the update."),
    ] = False,
    out: Out = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="A line for each iteration instead of a dashboard.")
    ] = False,
) -> None:
    """Train the policy of a recipe by reinforcement learning."""
    from agentrl.recipe.load import load

    loaded = load(recipe, overrides or ())
    if dry_run:
        from agentrl.trainer.dry_run import dry_run as play

        play(loaded)
        return
    from agentrl.trainer.run import run as train

    train(loaded, out=out, resume=resume, plain=plain)


@app.command()
def sft(recipe: Recipe, overrides: Overrides = None, *, out: Out = None) -> None:
    """Warm-start a policy by imitating the environment's demonstrations or its expert."""
    from agentrl.recipe.load import load

    loaded = load(recipe, overrides or (), purpose="sft")
    from agentrl.trainer.sft import sft as imitate

    imitate(loaded, out=out)


app.command("eval")(evaluate)
app.command()(rescore)
app.command()(doctor)
app.command()(view)
app.command(context_settings=SETTINGS)(compare)
app.command()(report)

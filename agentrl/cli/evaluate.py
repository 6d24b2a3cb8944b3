"""The commands `agentrl eval` and `agentrl rescore`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from agentrl.core.errors import RecipeError

if TYPE_CHECKING:
    from agentrl.evals.judge import JudgeSettings

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TARGET|KEY=VALUE",
        help="Suites (`agentrl suite list`), or one recipe; then settings to change, as in "
        "rollout.concurrency=32 engine.timeout=60 suite.temperature=0.7 seed=1",
    ),
]


def evaluate(
    targets: Targets = None,
    *,
    policy: Annotated[
        str,
        typer.Option(
            help="A run's or a policy's folder, a hub id, the address of an OpenAI-compatible "
            "server (https://host/v1), scripted:oracle or scripted:spoiled_oracle. Of a recipe, by "
            "default its own."
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="The server's name for the model.")] = "",
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Folder or hub id of the tokenizer of a server's model: it is then asked for "
            "completions, token by token, instead of for chats."
        ),
    ] = "",
    engine: Annotated[
        str, typer.Option(help="What loads a policy's weights: vllm (default) or transformers.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with the suites' rows; by default they come from the hub."),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="The first so many tasks of each suite.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of each task; default the suite's custom.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the evaluation; default runs/eval-NAME-DATE.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the evaluation in --out: play what is missing or was lost. Without a "
            "TARGET the folder's own plan says what that is.",
        ),
    ] = False,
) -> None:
    """Evaluate a policy on suites of tasks, or on the tasks that a recipe evaluates on.

    Every sample is written down as it finishes: an evaluation that was stopped, by whatever, is
    gone on with by `--resume --out FOLDER`, and repeats nothing.
    """
    from agentrl.evals.folder import EvalFolder
    from agentrl.evals.planning import Wish, laid_over, make_plan, require_same

    names, settings = _parted(targets or ())
    if resume and out is None:
        raise RecipeError("--resume goes on with the evaluation in --out: name its folder")
    if resume and not names and out is not None:
        asked = (("--policy", policy), ("--data", data), ("--tasks", tasks), ("--samples", samples))
        for option, value in asked:
            if value:
                raise RecipeError(
                    f"without a TARGET, --resume goes on as {out} says; leave {option} out"
                )
        stored = EvalFolder(out).read_plan()
        plan = laid_over(stored, settings)
        require_same(stored, plan, out)
    else:
        plan = make_plan(
            Wish(
                names, settings, policy=policy, model=model, tokenizer=tokenizer, engine=engine,
                data=data, tasks=tasks, samples=samples,
            )
        )  # fmt: skip
    from agentrl.evals.run import evaluate as play

    name = "-".join(one.name.removeprefix("recipe:") for one in plan.suites[:3])
    folder = out or _folder(f"eval-{name}")
    play(plan, folder, resume=resume, command=_command())
    _report(folder)


def rescore(
    folder: Annotated[Path, typer.Argument(help="Folder of the evaluation.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of the environment to change, as in max_turns=4; score=NAME makes "
            "another component the one that counts.",
        ),
    ] = None,
    *,
    grader: Annotated[
        str,
        typer.Option(
            help="Grade the stored answers by exact_match, cover_match, token_f1, gaia_match or "
            "math instead."
        ),
    ] = "",
    judge: Annotated[
        str,
        typer.Option(
            help="Address of an OpenAI-compatible server (https://host/v1) with a model that says "
            "whether the stored answers are right; its key is read from OPENAI_API_KEY. "
            "judge.KEY=VALUE changes how it is asked, as in judge.server.concurrency=8."
        ),
    ] = "",
    judge_model: Annotated[str, typer.Option(help="The judge, by its server's name for it.")] = "",
    judge_prompt: Annotated[
        str,
        typer.Option(
            help="answer: compare the final answer with the accepted ones; simpleqa: with a third "
            "grade, not attempted; response: find the answer in the whole last message."
        ),
    ] = "",
    score: Annotated[str, typer.Option(help="The reward component that counts.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default FOLDER-rescored-DATE.")
    ] = None,
) -> None:
    """Score an evaluation's stored trajectories again, without running the policy.

    Their actions are replayed through fresh environments, with other settings where some are
    given; a grader scores the stored answers alone, and so does a judge, whose verdicts are kept in
    `judge-cache` beside the folder. The evaluation itself stays as it is.
    """
    from agentrl.evals.rescore import Rescoring
    from agentrl.evals.rescore import rescore as again

    given = [one for one in settings or () if not one.startswith("judge.")]
    asked = [one.removeprefix("judge.") for one in settings or () if one.startswith("judge.")]
    for one in given:
        if "=" not in one:
            raise RecipeError(f"{one!r} is no setting of the environment; write key=value")
    chosen = [one.removeprefix("score=") for one in given if one.startswith("score=")]
    how = Rescoring(
        settings=tuple(one for one in given if not one.startswith("score=")),
        grader=grader,
        judge=_judge(judge, judge_model, judge_prompt, asked, folder),
        score=chosen[-1] if chosen else score,
    )
    target = out or folder.with_name(f"{folder.name}-rescored-{_now()}")
    again(folder, target, how)
    _report(target)


def _judge(
    url: str, model: str, prompt: str, settings: Sequence[str], folder: Path
) -> JudgeSettings | None:
    """The judge that is named; None where none is."""
    if not url:
        if model or prompt or settings:
            raise RecipeError("a judge needs --judge, the address of its server (https://host/v1)")
        return None
    if not model:
        raise RecipeError("name the judge with --judge-model, as its server calls it")
    from agentrl.engine.settings import ChatSettings
    from agentrl.evals.judge import JudgeSettings
    from agentrl.evals.planning import laid_over

    if not url.startswith(("http://", "https://")):
        raise RecipeError(f"--judge: an address starts with http:// or https://, got {url!r}")
    cache = str(folder.absolute().parent / "judge-cache")
    base = JudgeSettings(server=ChatSettings(base_url=url, model=model), cache=cache)
    wanted = [f"prompt={prompt}", *settings] if prompt else settings
    return laid_over(base, wanted, prefix="judge.")


def _report(folder: Path) -> None:
    """Write the report of an evaluation that has ended and say where it is."""
    from agentrl.evals.report import write_reports

    Console(highlight=False, soft_wrap=True).print(
        f"its report is in {write_reports([folder]).page}", markup=False
    )


def _parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Targets, and the settings `key=value`."""
    settings = [one for one in words if "=" in one and not Path(one).is_file()]
    return [one for one in words if one not in settings], settings


def _folder(name: str) -> Path:
    return Path("runs") / f"{name}-{_now()}"


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _command() -> str:
    return shlex.join(["agentrl", *sys.argv[1:]])

"""`agentrl run`: from a recipe to a finished run folder."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from agentrl.core.env import Env
from agentrl.core.errors import CheckpointError, RecipeError
from agentrl.core.registry import make_env
from agentrl.evals.statistics import Interval, paired_difference
from agentrl.recipe.schema import Recipe
from agentrl.trainer.checkpoint import Checkpoints, read_checkpoint
from agentrl.trainer.dashboard import Limits
from agentrl.trainer.display import Display, shown
from agentrl.trainer.expected import (
    Measured,
    Standing,
    standing,
    standing_json,
    standing_text,
)
from agentrl.trainer.loop import Evaluation
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.session import open_loop, open_workers
from agentrl.workers.learner import LearnerLostError
from agentrl.workers.runtime import Runtime

_MAY_CHANGE = {
    "name",
    "expect",
    "band",
    "runtime",
    "cluster",
    "eval.every",
    "eval.at_start",
    "eval.at_end",
    "eval.samples",
    "log",
    "rollout.workers",
    "rollout.concurrency",
    "rollout.gpus_per_worker",
    "rollout.env_hosts",
    "rollout.env_host_memory_gib",
    "rollout.retries",
    "rollout.max_failure_rate",
    "rollout.stall_seconds",
    "train.iterations",
    "train.save_every",
    "train.keep_checkpoints",
    "train.max_generated_tokens",
    "train.max_tool_calls",
}
"""What a resumed run may set otherwise than the run it continues.

Not whose scores are compared at the end, nor `eval.score`: by it groups are chosen to train.
"""

_LEARNER_RESTARTS = 3
"""How many learners a run may lose before it gives up."""


class Saved(NamedTuple):
    """A checkpoint to go on from: its folder and its state."""

    folder: Path
    state: dict[str, Any]


class RunResult(NamedTuple):
    """Where the run lies and what it reached; `gain` is after minus before on the same tasks."""

    out: Path
    before: Interval | None
    after: Interval | None
    gain: Interval | None
    seconds: float


def run(
    recipe: Recipe, *, out: Path | None = None, resume: bool = False, plain: bool = False
) -> RunResult:
    """Run `recipe` to its end in folder `out` (default `runs/NAME-DATE`).

    On a terminal a dashboard shows how it goes, unless `plain`.
    """
    folder = run_folder(recipe, out=out, resume=resume)
    return asyncio.run(_run(recipe, folder, resume=resume, display=Display(plain=plain)))


def _limits(recipe: Recipe) -> Limits:
    train = recipe.train
    return Limits(
        iterations=train.iterations,
        generated_tokens=train.max_generated_tokens,
        tool_calls=train.max_tool_calls,
    )


def run_folder(recipe: Recipe, *, out: Path | None, resume: bool) -> Path:
    """The folder of the run: a new one, or the one to resume.

    Without `out` that is the newest of `runs/NAME-*` that has a checkpoint.
    """
    if out is None and resume:
        found = sorted(Path("runs").glob(f"{recipe.name}-*"))
        for folder in reversed(found):
            if Checkpoints(folder / "checkpoints").latest():
                return folder
        raise CheckpointError(
            f"nothing to resume: no folder runs/{recipe.name}-*"
            + (f" has a checkpoint ({len(found)} without)" if found else "")
            + "; name the run with --out, or start one without --resume"
        )
    if out is not None and resume and not out.is_dir():
        raise CheckpointError(f"nothing to resume: there is no folder {out}")
    folder = out or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not resume and (folder / "metrics.jsonl").exists():
        raise RecipeError(
            f"{folder} holds a run already; continue it with --resume or name another with --out"
        )
    return folder


async def _run(recipe: Recipe, out: Path, *, resume: bool, display: Display) -> RunResult:
    started = time.monotonic()
    saved = _newest(out) if resume else None
    if saved is not None:
        _refuse_other_recipe(recipe, saved.state["recipe"], saved.folder)
    elif resume:
        display.line(f"no checkpoint in {out} yet: starting from the beginning")
    display.line(
        f"[bold]{recipe.name}[/]: {recipe.env.id}, "
        f"{f'preset {recipe.preset}, ' if recipe.preset else ''}{recipe.sampler.type} sampler, "
        f"{recipe.engine.type} engine, in {out}"
    )
    env = make_env(recipe.env.id, **recipe.env.args)
    try:
        async with open_workers(recipe, out, display, model=recipe.policy.path) as runtime:
            display.line(f"started in {time.monotonic() - started:.0f} s")
            evaluations = await _train(recipe, env, out, display, runtime, saved=saved)
    finally:
        await env.close()
    return _finish(recipe, out, evaluations, display, time.monotonic() - started)


async def _train(
    recipe: Recipe,
    env: Env,
    out: Path,
    display: Display,
    runtime: Runtime,
    *,
    saved: Saved | None,
) -> list[Evaluation]:
    """Train on from `saved` and write the policy; a learner that dies is replaced meanwhile."""
    lost: Counter[str] = Counter()
    for restarts in count():
        try:
            if restarts:
                saved = _newest(out)
                await runtime.restart_learner()
            start = saved.state["iteration"] + 1 if saved else 0
            with open_loop(recipe, env, out, display, runtime, start=start, lost=lost) as loop:
                if saved is not None:
                    loop.restore(saved.folder, saved.state)
                    display.line(f"resumed from {saved.folder.name}")
                with display.live(recipe.name, _limits(recipe)):
                    evaluations = await loop.train()
                runtime.save_policy(out / "policy")
                return evaluations
        except LearnerLostError as error:
            if restarts == _LEARNER_RESTARTS:
                raise
            lost["workers/learners_restarted"] += 1
            display.line(f"[yellow]{error}: starting another, at the newest checkpoint[/]")
    raise AssertionError


def _newest(out: Path) -> Saved | None:
    """The newest finished checkpoint of the run in `out`, its files checked; None without one."""
    folder = Checkpoints(out / "checkpoints").latest()
    return Saved(folder, read_checkpoint(folder)) if folder else None


def _refuse_other_recipe(recipe: Recipe, saved: dict[str, object], folder: Path) -> None:
    now = recipe.model_dump(mode="json")
    differing = [
        key
        for key in _differences(saved, now)
        if not any(key == free or key.startswith(free + ".") for free in _MAY_CHANGE)
    ]
    if differing:
        raise CheckpointError(
            f"{folder}: was written by another recipe (differs in {', '.join(differing)}); "
            "resume with the run's own recipe.yaml, or start a new run"
        )


def _differences(old: object, new: object, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            path
            for key in keys
            for path in _differences(
                old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key
            )
        ]
    return [] if old == new else [prefix]


def _finish(
    recipe: Recipe, out: Path, evaluations: list[Evaluation], display: Display, seconds: float
) -> RunResult:
    before = evaluations[0] if evaluations else None
    after = evaluations[-1] if evaluations else None
    gain = None
    if before and after and before.iteration != after.iteration:
        pairs = [
            (a, b)
            for a, b in zip(before.scores_P, after.scores_P, strict=True)
            if a == a and b == b
        ]
        gain = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    name = recipe.eval.score
    rows = read_metrics(out / "metrics.jsonl") if (out / "metrics.jsonl").exists() else []
    rewards = [
        (row["iteration"], row["rollout/reward_mean"])
        for row in rows
        if row.get("rollout/reward_mean") is not None
    ]
    display.curve("reward of the training episodes by iteration", rewards)
    if len(evaluations) > 1:
        points = [(e.iteration, e.interval.value) for e in evaluations]
        display.curve(f"{name} on unseen tasks by iteration", points)
    if gain is not None and before and after:
        display.line(
            f"[bold green]{name} {shown(name, before.interval)} -> {shown(name, after.interval)}[/]"
            f" on {len(before.scores_P)} unseen tasks: a gain of "
            f"{shown(name, gain).replace(' %', ' points')} in {seconds / 60:.1f} minutes"
        )
    if recipe.expect:
        display.text(f"expected: {recipe.expect}")
    found = _standing(recipe, evaluations, rows)
    if found is not None and recipe.band is not None:
        display.text(standing_text(found, recipe.band, name))
    display.line(
        f"everything is in {out}: recipe.yaml, metrics.jsonl, tensorboard/, trees/, "
        "checkpoints/, policy/"
    )
    result = RunResult(
        out, before.interval if before else None, after.interval if after else None, gain, seconds
    )
    (out / "result.json").write_text(
        json.dumps(
            {
                "before": result.before and result.before.plain(),
                "after": result.after and result.after.plain(),
                "gain": gain and gain.plain(),
                "expected": found and recipe.band and standing_json(found, recipe.band),
                "seconds": seconds,
                "evaluations": [[e.iteration, *e.interval.plain()] for e in evaluations],
            },
            indent=1,
        )
    )
    return result


def _standing(
    recipe: Recipe, evaluations: list[Evaluation], rows: list[dict[str, Any]]
) -> Standing | None:
    """Where the run stands against its recipe's band; None where it has none."""
    if recipe.band is None:
        return None
    measured = [Measured(one.iteration, one.interval) for one in evaluations]
    tokens = {row["iteration"]: row.get("budget/generated_tokens") or 0.0 for row in rows}
    return standing(recipe.band, measured, tokens)

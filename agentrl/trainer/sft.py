"""`agentrl sft`: imitation of an environment's demonstrations or expert, on the same learner as RL.

Only the tokens of actions are trained; each part of a demonstration is encoded by itself, as in a
rollout, so that the policy learns exactly the tokens that it will see and sample.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from agentrl.core.env import Demonstration, Env
from agentrl.core.errors import RecipeError
from agentrl.core.registry import make_env
from agentrl.learner.batch import Batch, Row, pack_rows
from agentrl.recipe.schema import Recipe
from agentrl.rollout.render import Renderer
from agentrl.trainer.demonstrations import demonstrator
from agentrl.trainer.display import Display
from agentrl.trainer.loop import Loop
from agentrl.trainer.run import RunResult, run_folder
from agentrl.trainer.session import open_loop, open_workers

_TOKENIZER_TEXTS = 3000
"""Demonstrations that a new model's tokenizer is trained on."""


def encode(demonstration: Demonstration, renderer: Renderer) -> Row:
    """A demonstration as one sequence, weight 1.0 on the tokens of its actions."""
    pieces = [renderer.prompt_ids(demonstration.prompt)]
    weights = [np.zeros(len(pieces[0]), np.float32)]
    for action, observation in demonstration.turns:
        action_ids = renderer.encode(action)
        observation_ids = renderer.observation_ids(observation, action_ids)
        pieces += [action_ids, observation_ids]
        weights += [
            np.ones(len(action_ids), np.float32),
            np.zeros(len(observation_ids), np.float32),
        ]
    return Row.sequence(np.concatenate(pieces), weight=np.concatenate(weights))


def batches(
    demonstrations: Iterator[Demonstration], renderer: Renderer, *, size: int, pack_tokens: int
) -> Iterator[Batch]:
    """Batches of `size` demonstrations, averaged over their trained tokens; ends with them."""
    while chosen := list(islice(demonstrations, size)):
        rows = [encode(demonstration, renderer) for demonstration in chosen]
        denominator = float(sum(row.trained_tokens for row in rows))
        yield Batch(pack_rows(rows, pack_tokens), denominator)


def sft(recipe: Recipe, *, out: Path | None = None) -> RunResult:
    """Imitate for `recipe.sft.steps` updates, evaluating as `recipe.eval` says."""
    folder = run_folder(recipe, out=out, resume=False)
    return asyncio.run(_sft(recipe, folder, Display()))


async def _sft(recipe: Recipe, out: Path, display: Display) -> RunResult:
    if recipe.sft is None:
        raise RecipeError(f"{recipe.name}: `agentrl sft` needs a section `sft`; it has none")
    started = time.monotonic()
    env = make_env(recipe.env.id, **recipe.env.args)
    try:
        demonstrate = await demonstrator(env, seed=recipe.seed)
        model = _starting_model(env, demonstrate(), recipe, out)
        async with open_workers(recipe, out, display, model=model, objective="nll") as runtime:
            with open_loop(recipe, env, out, display, runtime) as loop:
                await _imitate(loop, demonstrate(), runtime.renderer)
                runtime.save_policy(out / "policy")
    finally:
        await env.close()
    intervals = [evaluation.interval for evaluation in loop.evaluations]
    seconds = time.monotonic() - started
    curve = [[e.iteration, *e.interval.plain()] for e in loop.evaluations]
    (out / "result.json").write_text(json.dumps({"seconds": seconds, "evaluations": curve}))
    display.line(f"the policy is in {out / 'policy'}, after {seconds / 60:.1f} minutes")
    return RunResult(
        out,
        intervals[0] if intervals else None,
        intervals[-1] if intervals else None,
        None,
        seconds,
    )


def _starting_model(
    env: Env, demonstrations: Iterator[Demonstration], recipe: Recipe, out: Path
) -> str:
    """The recipe's model, or a new one with a tokenizer trained on demonstrations' text."""
    new = recipe.policy.new
    if new is None:
        return recipe.policy.path
    from agentrl.models.tiny import build_policy, build_tokenizer, save_policy

    texts = [
        text
        for demonstration in islice(demonstrations, _TOKENIZER_TEXTS)
        for text in _texts(demonstration)
    ]
    tokenizer = build_tokenizer(texts, vocab_size=new.vocabulary, tags=tags_of(env.stop))
    policy = build_policy(
        len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        width=new.width,
        layers=new.layers,
        seed=recipe.seed,
    )
    folder = out / "initial"
    save_policy(folder, policy, tokenizer)
    return str(folder)


def tags_of(stop: Sequence[str]) -> tuple[str, ...]:
    """The built-in tags, and both tags of each tool whose closing one ends an action."""
    from agentrl.models.tiny import TAGS

    pairs = [(one.replace("</", "<"), one) for one in stop if one.startswith("</")]
    return tuple(dict.fromkeys((*TAGS, *(tag for pair in pairs for tag in pair))))


def _texts(demonstration: Demonstration) -> Iterator[str]:
    yield from (message.text for message in demonstration.prompt)
    for action, observation in demonstration.turns:
        yield action
        yield from (message.text for message in observation)


async def _imitate(loop: Loop, demonstrations: Iterator[Demonstration], renderer: Renderer) -> None:
    recipe = loop.recipe
    settings = recipe.sft
    assert settings is not None
    stream = batches(
        demonstrations,
        renderer,
        size=settings.sequences_per_step,
        pack_tokens=recipe.learner.pack_tokens,
    )
    begun, losses = time.monotonic(), []
    for step, batch in enumerate(islice(stream, settings.steps), 1):
        metrics = await asyncio.to_thread(loop.learner.update, batch.rows, batch.denominator)
        losses.append(metrics["train/loss"])
        evaluate = recipe.eval.every and step % recipe.eval.every == 0
        if evaluate or step == settings.steps:
            metrics |= await loop.evaluate_at(step)
        loop.log.write(step, metrics)
        if step % 50 == 0 or step == settings.steps:
            loop.display.line(
                f"[bold]{step:5d}/{settings.steps}[/]  loss {np.mean(losses):7.4f}  "
                f"{time.monotonic() - begun:6.0f} s"
            )
            losses.clear()
        if evaluate and loop.evaluations[-1].interval.value >= settings.stop_at:
            loop.display.line(f"reached {settings.stop_at}: stopped at step {step}")
            break

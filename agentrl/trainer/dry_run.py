"""`agentrl run --dry-run`: two episodes by a script through everything up to the optimizer step.

The script plays the environment's gold actions, or random tokens where it has none. No model is
loaded: what is checked is the recipe, the environment, the tokens, the credit and the packing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentrl.core.env import Env
from agentrl.core.errors import DataError
from agentrl.core.registry import make_env
from agentrl.core.types import Group, Task
from agentrl.credit.otb import OtbCredit
from agentrl.credit.table import TurnTable
from agentrl.credit.values import ValueBaseline
from agentrl.engine.base import Engine
from agentrl.engine.scripted import RandomEngine, ScriptedEngine
from agentrl.engine.tokens import load_tokenizer
from agentrl.recipe.schema import Recipe
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.oracle import Oracle
from agentrl.rollout.render import Renderer
from agentrl.rollout.settings import RolloutSettings
from agentrl.samplers.chain import ChainSampler
from agentrl.trainer.batches import credit_of, training_steps
from agentrl.trainer.display import Display
from agentrl.trainer.second_look import unweighed
from agentrl.trainer.values import unvalued

_EPISODES = 2


def dry_run(recipe: Recipe, *, display: Display | None = None) -> list[Group]:
    """Play, show and pack two episodes of `recipe`; returns their groups."""
    return asyncio.run(_dry_run(recipe, display or Display()))


async def _dry_run(recipe: Recipe, display: Display) -> list[Group]:
    env = make_env(recipe.env.id, **recipe.env.args)
    tasks = env.tasks("train")[:_EPISODES]
    if not tasks:
        raise DataError(f"{recipe.env.id!r} has no training tasks; check its split and filters")
    tokenizer = load_tokenizer(recipe.policy.path)
    renderer = Renderer(tokenizer)  # type: ignore[arg-type]
    engine, script = await _engine(env, tasks, renderer, recipe)
    spec = HostSpec(
        env_id=recipe.env.id,
        env_args=recipe.env.args,
        engine=recipe.engine,
        model=recipe.policy.path,
        sampler=ChainSampler(trajectories=1),
        rollout=_in_whole_turns(recipe.rollout),
    )
    host = RolloutHost(spec, engine=engine, tokenizer=tokenizer)  # type: ignore[arg-type]
    await host.start()
    try:
        groups = [await host.sample_group(task, seed=recipe.seed) for task in tasks]
    finally:
        await host.close()
        await env.close()
    display.line(f"[bold]{recipe.name}[/]: {len(groups)} episodes of {recipe.env.id}, {script}")
    for group in groups:
        _show(group, renderer, display)
    _show_batch(groups, recipe, display)
    return groups


def _in_whole_turns(rollout: RolloutSettings) -> RolloutSettings:
    """`rollout` without segments: a script says a turn at a time."""
    sampling = rollout.sampling.model_copy(update={"segment_tokens": None})
    return rollout.model_copy(update={"sampling": sampling})


async def _engine(
    env: Env, tasks: Sequence[Task], renderer: Renderer, recipe: Recipe
) -> tuple[Engine, str]:
    if env.expert_action(tasks[0], ("",)) is None:
        return RandomEngine(renderer.vocabulary_size, seed=recipe.seed), "played at random"
    oracle = Oracle(env, renderer)
    await oracle.add(tasks)
    tokenizer = load_tokenizer(recipe.policy.path)
    return ScriptedEngine(oracle, tokenizer), "played by the environment's gold actions"


def _show(group: Group, renderer: Renderer, display: Display) -> None:
    for tree in group.trees:
        display.text(f"\ntask {tree.task_id}\n  prompt       {renderer.decode(tree.prompt_ids)!r}")
        for number, turn in enumerate(tree.turns, 1):
            display.text(f"  action {number}     {renderer.decode(turn.action_ids)!r}")
            if len(turn.observation_ids):
                display.text(f"  observation  {renderer.decode(turn.observation_ids)!r}")
        for trajectory in tree.trajectories():
            display.text(
                f"  {trajectory.stop_reason}, reward {trajectory.episode_return:g} "
                f"{dict(trajectory.turns[-1].rewards)}"
            )
        for failure in tree.failures:
            display.text(f"  failed: {failure.stop_reason}: {failure.message}")


def _show_batch(groups: Sequence[Group], recipe: Recipe, display: Display) -> None:
    # A group of one has nothing to be compared with: its return stands for its advantage.
    method = recipe.credit.model_copy(update={"singleton": "raw"})
    # No critic was asked, and one that has learned nothing says 0.
    table = TurnTable.of(groups, with_tokens=method.needs_tokens)
    table = unvalued(table) if isinstance(method, ValueBaseline) else table
    table = unweighed(table) if isinstance(method, OtbCredit) else table
    steps = training_steps(
        groups,
        credit_of(groups, method, recipe.learner.loss, table=table),
        recipe.learner.loss,
        pack_tokens=recipe.learner.pack_tokens,
        updates=1,
    )
    rows = [row for step in steps for row in step.batch.rows]
    trained = sum(row.trained_tokens for row in rows)
    if not rows:
        display.line("\nno turn has any credit here, so nothing was packed; no update was made")
        return
    display.line(
        f"\npacked into {len(rows)} {'row' if len(rows) == 1 else 'rows'} of "
        f"{sum(len(row) for row in rows)} tokens, {trained} of "
        "them trained; no update was made"
    )

"""What imitation learns from: an environment's demonstrations, or its expert on training tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from agentrl.core.env import Demonstration, Env, Observation
from agentrl.core.errors import RecipeError
from agentrl.core.types import Task
from agentrl.rollout.seeds import derive

MOST_PLAYED = 1000
"""Training tasks that the expert is played on, where an environment has no demonstrations."""


async def demonstrator(env: Env, *, seed: int) -> Callable[[], Iterator[Demonstration]]:
    """Makes endless streams of episodes to imitate; each stream begins anew.

    They are `env.demonstrations`, or else the episodes of its expert (`expert_action` or
    `gold_action`) that reach their end on training tasks, in random order, again and again.

    Raises:
        RecipeError: the environment has neither.
    """
    if next(env.demonstrations(seed=seed), None) is not None:
        return lambda: env.demonstrations(seed=seed)
    tasks = list(env.tasks("train"))
    rng = random.Random(derive(seed, "demonstrations"))
    if len(tasks) > MOST_PLAYED:
        tasks = rng.sample(tasks, MOST_PLAYED)
    episodes = [await _played(env, task, derive(seed, "demonstrations", task.id)) for task in tasks]
    found = [episode for episode in episodes if episode is not None]
    if not found:
        raise RecipeError(
            f"{type(env).__name__} has nothing to imitate: its expert ended no episode of its "
            f"{len(tasks)} training tasks; write `gold_action` or `expert_action` (as those that "
            "`agentrl env new` writes) or `demonstrations`"
        )
    return lambda: _again_and_again(found, seed)


def _again_and_again(found: Sequence[Demonstration], seed: int) -> Iterator[Demonstration]:
    rng = random.Random(derive(seed, "demonstrations", "order"))
    while True:
        yield from rng.sample(found, len(found))


async def _played(env: Env, task: Task, seed: int) -> Demonstration | None:
    """An episode of the expert; None where it does not reach an end."""
    if env.expert_action(task, ("",)) is None:
        return None
    prompt = await env.reset(task, seed=seed)
    seen, turns = [_text(prompt)], list[tuple[str, Observation]]()
    while (action := env.expert_action(task, seen)) is not None:
        result = await env.step(action)
        over = result.terminated or result.truncated
        # What is told after the end is in no context.
        turns.append((action, () if over else result.observation))
        seen.append(_text(result.observation))
        if over:
            return Demonstration(prompt, tuple(turns)) if result.terminated else None
    return None


def _text(observation: Observation) -> str:
    return "\n".join(message.text for message in observation)

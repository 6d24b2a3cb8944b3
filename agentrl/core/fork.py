"""Branching an environment in the middle of an episode, in whichever way it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentrl.core.env import Env, Observation
from agentrl.core.errors import EnvError
from agentrl.core.types import Task


async def fork_env(
    env: Env,
    *,
    make: Callable[[], Env],
    task: Task,
    seed: int,
    actions: Sequence[str],
    observations: Sequence[Observation],
) -> Env:
    """A second environment that stands where `env` stands; `env` itself is left as it is.

    `actions` are those that `env` was given since `reset(task, seed=seed)`; `observations` what
    it returned, the one of `reset` first, so one more. `"copy"` uses neither; `"replay"` gives
    the same actions to a fresh environment from `make` and compares every observation.

    Raises:
        EnvError: it cannot fork, or a replay went another way.
    """
    if env.forkable == "copy":
        return await env.fork()
    if env.forkable == "no":
        raise EnvError(f"{env!r} cannot fork (forkable = 'no'): use a sampler that does not branch")
    if len(observations) != len(actions) + 1:
        raise EnvError(
            f"a replay of {len(actions)} actions needs {len(actions) + 1} observations, that of "
            f"reset first; got {len(observations)}"
        )
    twin = make()
    try:
        await _replay(twin, task, seed, actions, observations)
    except BaseException:
        await twin.close()
        raise
    return twin


async def _replay(
    twin: Env, task: Task, seed: int, actions: Sequence[str], observations: Sequence[Observation]
) -> None:
    where = f"replay of task {task.id!r}, seed {seed}, in {twin!r}"
    _compare(f"{where}, reset", observations[0], await twin.reset(task, seed=seed))
    for number, action in enumerate(actions):
        result = await twin.step(action)
        _compare(f"{where}, turn {number}", observations[number + 1], result.observation)
        if result.terminated or result.truncated:
            raise EnvError(f"{where}: the episode ended at turn {number}, which it had not before")


def _compare(where: str, expected: Observation, found: Observation) -> None:
    if found == expected:
        return
    raise EnvError(
        f"{where}: another observation than before. Expected {_shown(expected)}, got "
        f"{_shown(found)}. An environment with forkable = 'replay' must repeat itself exactly"
    )


def _shown(observation: Observation) -> str:
    text = " | ".join(f"{message.role}: {message.text}" for message in observation)
    return repr(text if len(text) <= 200 else text[:200] + "...")

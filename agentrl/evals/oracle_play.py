"""Tasks of a suite played by their gold actions, or spoiled ones, through the whole rollout path.

No model is needed: a script speaks text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentrl.core.registry import env_class, env_settings, make_env
from agentrl.core.types import Group, Task
from agentrl.engine.scripted import TranscriptScript
from agentrl.engine.settings import ScriptedSettings
from agentrl.evals.samples import scores_of
from agentrl.evals.suite import Suite
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.oracle import IndistinctError, Oracle
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.rollout.transcript import Transcript
from agentrl.samplers.chain import ChainSampler

_TOGETHER = 500
"""An oracle tells tasks by their prompts, which is slow among thousands."""

_AT_ONCE = {"code": 16, "web": 6, "desktop": 3}
_SPOILED_TURNS = 3


class Attempt(NamedTuple):
    """How the play of a task ended: its score (None: none has that name), or what was lost.

    `malformed` counts the calls that the environment could not read, `mended` the failures after
    which the episode went on.
    """

    task_id: str
    score: float | None
    lost: str = ""
    malformed: int = 0
    mended: int = 0


async def play(
    suite: Suite, args: Mapping[str, Any], tasks: Sequence[Task], *, spoiled: bool = False
) -> list[Attempt]:
    """Each of `tasks` once, within the suite's limit on turns; in the order of `tasks`.

    Copies (tasks with one prompt and different answers) are played one after the other, since the
    oracle could not tell which of them is asked. `args` are the environment's settings. Spoiled
    episodes of games and screens, which nothing ends, are cut after three turns.
    """
    turns = suite.max_turns
    if spoiled and suite.family in ("games", "web", "desktop"):
        turns = min(turns, _SPOILED_TURNS)
        if "max_turns" in env_settings(env_class(suite.env)):
            args = {**args, "max_turns": turns}
    found: dict[int, Attempt] = {}
    for first in range(0, len(tasks), _TOGETHER):
        left = dict(enumerate(tasks[first : first + _TOGETHER], start=first))
        while left:
            attempts = await _round(suite, args, left, turns=turns, spoiled=spoiled)
            found |= attempts
            left = {number: task for number, task in left.items() if number not in attempts}
    return [found[number] for number in range(len(tasks))]


async def _round(
    suite: Suite,
    args: Mapping[str, Any],
    tasks: Mapping[int, Task],
    *,
    turns: int,
    spoiled: bool,
) -> dict[int, Attempt]:
    """Those of `tasks` that one oracle can tell apart."""
    transcript = Transcript()
    oracle = Oracle(make_env(suite.env, **args), transcript, spoiled=spoiled)
    spec = HostSpec(
        env_id=suite.env,
        env_args=args,
        engine=ScriptedSettings(script="oracle"),
        model="",
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            concurrency=_AT_ONCE.get(suite.family, 64),
            sampling=SamplingSettings(max_tokens_per_turn=1 << 20),
            limits=LimitsSettings(max_turns=turns, max_tokens=1 << 24),
        ),
    )
    host = RolloutHost(spec, engine=TranscriptScript(oracle, transcript))

    async def attempt(task: Task) -> Attempt | None:
        try:
            await oracle.add([task])
        except IndistinctError:
            return None
        return _attempt(suite.score, await host.sample_group(task, seed=0))

    await host.start()
    try:
        found = await asyncio.gather(*map(attempt, tasks.values()))
    finally:
        await oracle.close()
        await host.close()
    return {number: one for number, one in zip(tasks, found, strict=True) if one is not None}


def _attempt(name: str, group: Group) -> Attempt:
    failures = [one.message for tree in group.trees for one in tree.failures]
    chain = next(iter(group.trajectories()), None)
    if chain is None or chain.stop_reason.is_failure:
        return Attempt(group.task_id, None, lost="; ".join(failures) or "it has no end")
    return Attempt(
        group.task_id,
        scores_of(chain.turns).get(name),
        malformed=sum(turn.malformed_calls for turn in chain.turns),
        mended=len(failures),
    )

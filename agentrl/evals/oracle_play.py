"""Tasks of a suite played by their gold actions, or spoiled ones, through the whole rollout path.

No model is needed: a script speaks text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from agentrl.core.registry import env_class, env_settings, make_env
from agentrl.core.types import Group, Task
from agentrl.engine.scripted import TranscriptScript
from agentrl.engine.settings import ScriptedSettings
from agentrl.evals.samples import scores_of
from agentrl.evals.suite import Suite
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.oracle import Oracle
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.rollout.transcript import Transcript
from agentrl.samplers.chain import ChainSampler

_AT_ONCE = {"code": 16, "web": 6, "desktop": 2}
_SPOILED_TURNS = 3


class Attempt(NamedTuple):
    """How the play of a task ended: its score (None: none has that name), or what was lost.

    `malformed` counts the calls that the environment could not read, `mended` the failures after
    which the episode went on; `prompt` is what the policy read first.
    """

    task_id: str
    score: float | None
    lost: str = ""
    malformed: int = 0
    mended: int = 0
    prompt: str = ""


async def play(
    suite: Suite, args: Mapping[str, Any], tasks: Sequence[Task], *, spoiled: bool = False
) -> list[Attempt]:
    """Each of `tasks` once, within the suite's limit on turns; in the order of `tasks`.

    `args` are the environment's settings. Each task has an oracle of its own, so that copies (one
    prompt, different answers) are told apart. Spoiled episodes of games and screens, which nothing
    ends, are cut after three turns.
    """
    turns = suite.max_turns
    if spoiled and suite.family in ("games", "web", "desktop"):
        turns = min(turns, _SPOILED_TURNS)
        if "max_turns" in env_settings(env_class(suite.env)):
            args = {**args, "max_turns": turns}
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
    transcript, env = Transcript(), make_env(suite.env, **args)
    host = RolloutHost(spec, engine=TranscriptScript(_say, transcript))

    async def attempt(task: Task) -> Attempt:
        speaker = _Speaker(task, Oracle(env, transcript, spoiled=spoiled))
        _SPEAKER.set(speaker)
        group = await host.sample_group(task, seed=0)
        return _attempt(suite.score, group, speaker.prompt)

    await host.start()
    try:
        return await asyncio.gather(*map(attempt, tasks))
    finally:
        await env.close()
        await host.close()


class _Speaker:
    """The oracle of one task, which learns its prompt when it is first asked."""

    def __init__(self, task: Task, oracle: Oracle) -> None:
        self._task, self._oracle = task, oracle
        self.prompt = ""

    def __call__(self, context: str) -> str:
        if not self.prompt:
            self.prompt = context
            self._oracle.learn(self._task, context)
        return self._oracle(context)


_SPEAKER: ContextVar[_Speaker] = ContextVar("speaker")
"""Whose turn it is: tasks of the event loop inherit it from the episode that starts them."""


def _say(context: str) -> str:
    return _SPEAKER.get()(context)


def _attempt(name: str, group: Group, prompt: str) -> Attempt:
    failures = [one.message for tree in group.trees for one in tree.failures]
    chain = next(iter(group.trajectories()), None)
    if chain is None or chain.stop_reason.is_failure:
        said = "; ".join(failures) or "it has no end"
        return Attempt(group.task_id, None, lost=said, prompt=prompt)
    return Attempt(
        group.task_id,
        scores_of(chain.turns).get(name),
        malformed=sum(turn.malformed_calls for turn in chain.turns),
        mended=len(failures),
        prompt=prompt,
    )

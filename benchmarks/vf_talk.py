"""The tasks of `evaluation.py` as a verifiers environment."""

from __future__ import annotations

import os
from collections.abc import Iterable

import verifiers.v1 as vf
from evaluation_peers import HINT, TURNS

__all__ = ["Talk", "TalkEnv"]


class TalkData(vf.TaskData):
    answer: str


class TalkTask(vf.Task[TalkData, vf.State, vf.TaskConfig]):
    pass


class TalkConfig(vf.EnvConfig):
    talker: vf.AgentConfig = vf.AgentConfig()


class TalkEnv(vf.Env[TalkConfig]):
    """A question, hints, and a grade of the last reply."""

    async def run(self, task: TalkTask, agents: vf.Agents) -> None:
        """Play one conversation."""
        async with agents.talker.interaction(task) as interaction:
            segment = await interaction.turn()
            for _ in range(TURNS - 1):
                segment = await interaction.turn(HINT)
        right = float(task.data.answer in segment.last_reply)
        interaction.trace.record_reward("right", right, 1.0)


class Talk(vf.Taskset[TalkTask, vf.TasksetConfig]):
    """As many questions as `BENCH_TALK` says."""

    def load(self) -> Iterable[TalkTask]:
        """All of them."""
        for n in range(int(os.environ["BENCH_TALK"])):
            yield TalkTask(TalkData(prompt=f"Question {n}", answer="42"), self.config.task)

"""A verifiers environment of several turns: a user who says higher or lower."""

from __future__ import annotations

from collections.abc import Iterable

import verifiers.v1 as vf

__all__ = ["Guess", "GuessEnv"]


class GuessData(vf.TaskData):
    secret: int


class GuessTask(vf.Task[GuessData, vf.State, vf.TaskConfig]):
    pass


class GuessConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class GuessEnv(vf.Env[GuessConfig]):
    async def run(self, task: GuessTask, agents: vf.Agents) -> None:
        found = 0.0
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                if segment.last_reply == "crash":
                    raise ValueError("the table fell over")
                guess = int(segment.last_reply) if segment.last_reply.isdigit() else -1
                if guess == task.data.secret:
                    found = 1.0
                    break
                said = "higher" if guess < task.data.secret else "lower"
                segment = await interaction.turn(said)
        interaction.trace.record_reward("found", found, 1.0)


class Guess(vf.Taskset[GuessTask, vf.TasksetConfig]):
    INFINITE = True

    def load(self) -> Iterable[GuessTask]:
        n = 0
        while True:
            n += 1
            data = GuessData(prompt="Guess a number from 0 to 9.", secret=n * 7 % 10)
            yield GuessTask(data, self.config.task)

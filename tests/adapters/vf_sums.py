"""A verifiers taskset: sums, answered in one message."""

from __future__ import annotations

from collections.abc import Iterable

import verifiers.v1 as vf

__all__ = ["Sums"]


class SumData(vf.TaskData):
    answer: str


class SumTask(vf.Task[SumData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=2.0)
    async def right(self, task: SumData, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == task.answer)

    @vf.reward(weight=0.25)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 5)

    @vf.reward(weight=0.1)
    async def vowels(self, trace: vf.Trace) -> float:
        said = trace.last_reply
        return sum(letter in "aeiou" for letter in said) / max(1, len(said))

    @vf.metric
    async def length(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply))


class SumsConfig(vf.TasksetConfig):
    count: int = 8


class Sums(vf.Taskset[SumTask, SumsConfig]):
    def load(self) -> Iterable[SumTask]:
        for n in range(self.config.count):
            prompt = f"What is {n} + {n + 1}?"
            data = SumData(prompt=prompt, system_prompt="Answer.", answer=str(2 * n + 1))
            yield SumTask(data, self.config.task)

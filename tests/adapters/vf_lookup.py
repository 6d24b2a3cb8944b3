"""A verifiers taskset whose tasks bring a tool server."""

from __future__ import annotations

from collections.abc import Iterable

import verifiers.v1 as vf

__all__ = ["Lookup"]


class Shelf(vf.Toolset[vf.ToolsetConfig, vf.State]):
    @vf.tool
    async def find(self, name: str) -> str:
        """Find where a thing is."""
        if name != "key":
            raise ValueError(f"there is no {name}")
        return "under the mat"


class LookupData(vf.TaskData):
    answer: str


class LookupConfig(vf.TaskConfig):
    shelf: vf.ToolsetConfig = vf.ToolsetConfig()


class LookupTask(vf.Task[LookupData, vf.State, LookupConfig]):
    @classmethod
    def toolsets(cls, config: LookupConfig) -> list[vf.Toolset]:
        return [Shelf(config.shelf)]

    @vf.reward
    async def right(self, task: LookupData, trace: vf.Trace) -> float:
        return float(task.answer in trace.last_reply)


class LookupTasksetConfig(vf.TasksetConfig):
    task: LookupConfig = LookupConfig()


class Lookup(vf.Taskset[LookupTask, LookupTasksetConfig]):
    def load(self) -> Iterable[LookupTask]:
        for n in range(4):
            prompt = f"Where is the key? ({n})"
            data = LookupData(prompt=prompt, system_prompt="Look.", answer="under the mat")
            yield LookupTask(data, self.config.task)


if __name__ == "__main__":
    Shelf.run()

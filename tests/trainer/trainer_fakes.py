"""An environment whose reward any policy can vary: the share of its letters that are vowels."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import EngineError
from agentrl.core.types import Message, Task


class VowelEnv(Env):
    """Two turns; each is worth the share of vowels among the action's characters."""

    forkable = "copy"

    def __init__(self, *, crash: bool = False, seconds: float = 0.0) -> None:
        self.crash = crash
        self.seconds = seconds
        self._turn = 0

    def tasks(self, split: str) -> Sequence[Task]:
        """Sixteen words."""
        return [Task(f"{split}-{index}", {"word": f"word {index}"}) for index in range(16)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The word."""
        self._turn = 0
        return (Message.of("user", task.data["word"]),)

    async def step(self, action: str) -> StepResult:
        """Count vowels, after `seconds`."""
        await asyncio.sleep(self.seconds)
        if self.crash:
            raise RuntimeError("this environment is broken")
        self._turn += 1
        reward = sum(letter in "aeiou" for letter in action) / max(1, len(action))
        over = self._turn == 2
        observation = () if over else (Message.of("inline", " go on"),)
        return StepResult(observation, reward, over, False, StepInfo(rewards={"vowels": reward}))

    async def fork(self) -> Self:
        """A copy."""
        return copy.copy(self)


class EngineBreakerEnv(VowelEnv):
    """Breaks every engine of its process for good, once, when the file ENGINE_BREAKER exists."""

    async def step(self, action: str) -> StepResult:
        """Break what there is, then go on."""
        armed = Path(os.environ["ENGINE_BREAKER"])
        if armed.exists():
            armed.unlink()
            break_engines()
        return await super().step(action)


def break_engines() -> None:
    """Make the engines of this process fail as dead ones do."""
    from agentrl.engine.transformers import TransformersEngine
    from agentrl.engine.vllm_loop import EngineLoop

    async def dead(*_: object) -> None:
        raise EngineError("this engine is dead")

    gc.unfreeze()  # vLLM hides what it made from the collector
    for thing in gc.get_objects():
        if isinstance(thing, TransformersEngine):
            thing.generate = thing.score = dead  # type: ignore[method-assign,assignment]
        elif isinstance(thing, EngineLoop):
            # Nothing that its thread can work on: the thread ends, as it does when vLLM fails.
            thing._put(None, Future())  # type: ignore[arg-type]

"""An environment whose reward any policy can vary: the share of its letters that are vowels."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Sequence
from typing import Self

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, Task


class VowelEnv(Env):
    """Two turns; each is worth the share of vowels among the action's characters."""

    forkable = "copy"

    def __init__(self, *, crash: bool = False) -> None:
        self.crash = crash
        self._turn = 0

    def tasks(self, split: str) -> Sequence[Task]:
        """Sixteen words."""
        return [Task(f"{split}-{index}", {"word": f"word {index}"}) for index in range(16)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The word."""
        self._turn = 0
        return (Message.of("user", task.data["word"]),)

    async def step(self, action: str) -> StepResult:
        """Count vowels."""
        await asyncio.sleep(0)
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


class FragileEnv(VowelEnv):
    """Ends its process at the first step, once for each machine-wide marker file."""

    async def step(self, action: str) -> StepResult:
        """Die once."""
        marker = os.environ["FRAGILE_MARKER"]
        if not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write(str(os.getpid()))
            os._exit(9)
        return await super().step(action)

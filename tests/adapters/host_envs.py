"""Tiny envs that environment hosts serve in tests, each with one bad habit."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Self

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import DataError
from agentrl.core.types import Image, Message, Task, Text, ToolRecord


class Counter(Env):
    """Counts its turns; an action can make it misbehave."""

    forkable = "copy"

    def __init__(self, goal: int = 3) -> None:
        self.goal = goal
        self.turn = 0
        self.leak: list[bytearray] = []

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(f"{split}-{index}", {"start": index, "tags": ["a"]}) for index in range(3)]

    @property
    def tool_schemas(self) -> tuple[dict[str, object], ...]:
        return ({"name": "count", "parameters": {"type": "object"}},)

    @property
    def stop(self) -> tuple[str, ...]:
        return ("</count>",)

    def gold_action(self, task: Task, turn: int) -> str | None:
        return f"gold {task.id} {turn}" if turn < self.goal else None

    async def reset(self, task: Task, *, seed: int) -> Observation:
        self.turn = int(task.data.get("start", 0))
        return (Message.of("system", f"seed {seed}"), Message.of("user", task.id))

    async def step(self, action: str) -> StepResult:
        if action == "exit":
            os._exit(7)
        if action == "sys.exit":
            sys.exit(3)
        if action == "raise":
            raise ValueError("the die has seven sides")
        if action == "data error":
            raise DataError("corpus.jsonl:3: no text")
        if action == "cancel itself":
            raise asyncio.CancelledError
        if action == "hang":
            await asyncio.sleep(3600)
        if action == "block":
            time.sleep(3600)
        if action == "leak":
            for _ in range(64):
                self.leak.append(bytearray(os.urandom(1)) * 2**23)
                await asyncio.sleep(0.02)
        if action == "unsendable":
            return StepResult((), 0.0, False, False, StepInfo(state_key={1, 2}))
        await asyncio.sleep(0)
        self.turn += 1
        info = StepInfo(
            rewards={"right": 0.25, "format": 0.5},
            tool_calls=(ToolRecord("count", {"to": [self.turn]}, True, 0.125),),
            malformed_calls=1,
            state_key=f"turn {self.turn}",
            metrics={"length": float(len(action))},
        )
        seen = Message("tool", (Text(f"{self.turn}: {action}"), Image("image/png", b"\x00\xff")))
        done = self.turn >= self.goal
        return StepResult((seen,), 0.75, done, False, info)

    async def fork(self) -> Self:
        other = type(self)(self.goal)
        other.turn = self.turn
        return other


class Echo(Env):
    """Says what it hears, at once."""

    async def reset(self, task: Task, *, seed: int) -> Observation:
        return (Message.of("user", task.id),)

    async def step(self, action: str) -> StepResult:
        return StepResult((Message.of("user", action),), 0.0, False, False, StepInfo())


class Mortal(Echo):
    """Ends its process at its second step, once; ends its episode at the third."""

    forkable = "replay"
    turn = 0

    async def step(self, action: str) -> StepResult:
        self.turn += 1
        marker = os.environ["MORTAL_MARKER"]
        if self.turn == 2 and not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(7)
        return (await super().step(action))._replace(terminated=self.turn == 3)


class Slow(Echo):
    """Computes for 5 ms without an `await`."""

    async def step(self, action: str) -> StepResult:
        time.sleep(0.005)
        return await super().step(action)


class Replayed(Echo):
    """Forks by replay."""

    forkable = "replay"


class Refuses(Echo):
    """Cannot be made."""

    def __init__(self) -> None:
        raise DataError("corpus.jsonl: no such file")


class StubbornClose(Echo):
    """Fails to close."""

    async def close(self) -> None:
        raise RuntimeError("the door is stuck")


class Where(Env):
    """Says in which process it lives and what that imports from."""

    async def reset(self, task, *, seed):
        return (Message.of("user", f"{os.getpid()} {sys.path}"),)

    async def step(self, action):
        return StepResult((), 0.0, True, False, StepInfo())

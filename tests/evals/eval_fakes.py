"""Plans and an environment whose troubles a file switches on and off, for tests of evaluations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import EnvError
from agentrl.core.types import Message, Task
from agentrl.engine.settings import ScriptedSettings
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.rollout.settings import RolloutSettings

HERE = Path(__file__).parent


class QuizEnv(Env):
    """A question, `turns - 1` hints that must be acknowledged, and an answer: `correct` or not.

    `trouble` is a file that says which task ids fail in what way: {"q1": "crash"}.
    """

    forkable = "replay"

    def __init__(
        self,
        *,
        questions: int = 6,
        turns: int = 2,
        seconds: float = 0.0,
        trouble: str = "",
        offset: int = 0,
        hint: str = "go on",
        same_id: bool = False,
    ) -> None:
        self.count, self.turns, self.seconds = questions, turns, seconds
        self.trouble, self.offset, self.hint, self.same_id = trouble, offset, hint, same_id
        self._task: Task | None = None
        self._turn = 0

    def tasks(self, split: str) -> Sequence[Task]:
        if split != "eval":
            return ()
        return [
            Task("q" if self.same_id and n < 2 else f"q{n}", {"answer": str(100 + n)})
            for n in range(self.count)
        ]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        self._task, self._turn = task, 0
        if self._fault() == "no reset":
            raise RuntimeError("no episode today")
        return (Message.of("user", f"Question {task.id}"),)

    async def step(self, action: str) -> StepResult:
        await asyncio.sleep(self.seconds)
        task, self._turn = self._task, self._turn + 1
        assert task is not None
        fault = self._fault()
        if fault == "crash":
            raise RuntimeError("the machine is gone")
        if self._turn < self.turns:
            info = StepInfo(metrics={"seen": float(self._turn)})
            return StepResult((Message.of("user", self.hint),), 0.0, False, False, info)
        if fault == "ungraded":
            raise EnvError("ungraded: the judge is away")
        right = action.strip() == str(int(task.data["answer"]) + self.offset)
        info = StepInfo(rewards={"correct": float(right)}, metrics={"length": float(len(action))})
        return StepResult((), float(right), True, False, info)

    def gold_action(self, task: Task, turn: int) -> str | None:
        # Half of the answers are wrong, so that scores are neither 0 nor 1.
        wrong = int(task.data["answer"]) % 2 and "wrong" in self.hint
        return "ok" if turn < self.turns - 1 else task.data["answer"] + ("0" if wrong else "")

    def answer_of(self, action: str) -> str | None:
        return action.strip() if action.strip().isdigit() else None

    def _fault(self) -> str:
        path = Path(self.trouble)
        if not self.trouble or not path.is_file() or self._task is None:
            return ""
        return str(json.loads(path.read_text()).get(self._task.id, ""))


def plan(
    script: str = "oracle", *, rollout: dict[str, Any] | None = None, **suite: Any
) -> EvalPlan:
    """A script on `QuizEnv`; `suite` are fields of the planned suite, or of the environment."""
    own = {key: suite.pop(key) for key in list(suite) if key not in PlannedSuite.model_fields}
    planned = {"name": "quiz", "version": 1, "env": "eval_fakes:QuizEnv", "score": "correct"}
    return EvalPlan(
        policy=f"scripted:{script}",
        engine=ScriptedSettings(script=script),
        rollout=RolloutSettings(**({"retries": 0} | (rollout or {}))),
        suites=(PlannedSuite(**(planned | suite | {"args": own})),),
    )

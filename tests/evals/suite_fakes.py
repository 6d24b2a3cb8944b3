"""An environment whose tasks are what a test wants them to be."""

from __future__ import annotations

from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task


class Quiz(ToolEnv):
    """Each of `tasks` is [id, question, right answer, gold answer]."""

    def __init__(self, *, tasks: list[list[str]], broken: str = "") -> None:
        super().__init__()
        self._tasks, self._broken = tasks, broken

    def tasks(self, split):
        if split != "eval":
            return ()
        return [
            Task(id_, {"question": question, "right": right, "gold": gold})
            for id_, question, right, gold in self._tasks
        ]

    def prompt(self, task):
        return task.data["question"]

    def score(self, task, answer):
        if task.id == self._broken:
            raise RuntimeError("the grader is gone")
        return {"correct": float(answer == task.data["right"])}

    def gold_action(self, task, turn):
        return f"<answer>{task.data['gold']}</answer>"

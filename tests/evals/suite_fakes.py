"""An environment whose tasks are what a test wants them to be."""

from __future__ import annotations

from typing import ClassVar

from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task


class Quiz(ToolEnv):
    """Each of `tasks` is [id, question, right answer, gold answer].

    The grader of the task `broken` always fails, that of the task `shaky` once in a process.
    """

    shaken: ClassVar[set[str]] = set()

    def __init__(self, *, tasks: list[list[str]], broken: str = "", shaky: str = "") -> None:
        super().__init__()
        self._tasks, self._broken, self._shaky = tasks, broken, shaky

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
        if task.id == self._shaky and task.id not in self.shaken:
            self.shaken.add(task.id)
            raise RuntimeError("the grader is gone for now")
        return {"correct": float(answer == task.data["right"])}

    def gold_action(self, task, turn):
        return f"<answer>{task.data['gold']}</answer>"

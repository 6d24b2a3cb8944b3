"""The tool repeats a word; so should the answer."""

from __future__ import annotations

from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task


def echo(word: str) -> str:
    """Say a word again."""
    return word


class EchoEnv(ToolEnv):
    """Repeat the word."""

    tools = (echo,)

    def tasks(self, split: str) -> list[Task]:
        """Two."""
        return [Task(f"{split}-{word}", {"word": word}) for word in ("one", "two")]

    def prompt(self, task: Task) -> str:
        """The word."""
        return f"Repeat: {task.data['word']}"

    def score(self, task: Task, answer: str | None) -> dict[str, float]:
        """Exact match."""
        return {"same": float(answer == task.data["word"])}

    def gold_action(self, task: Task, turn: int) -> str:
        """Echo once, then answer."""
        word = task.data["word"]
        return (
            self.call_format.answer(word) if turn else self.call_format.call("echo", {"word": word})
        )

"""The environment `mcp/tasks`: questions, tools of MCP servers, answers graded as short texts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from agentrl.core.datasets import Row, read_rows
from agentrl.core.env import Forkable
from agentrl.core.errors import DataError, RecipeError
from agentrl.core.tool import Tool
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task
from agentrl.graders.qa import cover_match, exact_match, token_f1
from agentrl.tools.mcp import McpServer, McpTools

from .warehouse import stock

_GRADERS: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "exact": exact_match,
    "f1": token_f1,
    "cover": cover_match,
}


class McpEnv(ToolEnv):
    """Questions that are answered with the tools of MCP servers.

    Observation: a description of the tools, the question; then the results of the calls, errors
    of the tools among them.
    Action: calls of the servers' tools, or the answer, in `format`.
    Reward: `correct`, the answer's score by `grade` against the best of the task's answers:
    `exact` (match), `f1` (of tokens) or `cover` (the answer contains one).
    Ends: terminated on an answer; truncated after `max_turns` actions.
    Data: rows with `question` and `answer` (or `answers`, a list) and, if they have one, `id`: of
    `path` for training, of `eval_path` for evaluation. Without files the built-in questions about
    a made-up warehouse, which the built-in server knows.

    `servers` are those of `agentrl.tools.mcp.McpServer`. All episodes of a process share one
    connection to each; give `per_episode` for servers that keep state: each episode then has
    processes or sessions of its own, and branches by replay.
    """

    def __init__(
        self,
        *,
        servers: Sequence[McpServer] = (),
        path: str = "",
        eval_path: str = "",
        grade: Literal["exact", "f1", "cover"] = "exact",
        per_episode: bool = False,
        format: Literal["xml", "json"] = "json",
        instructions: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(format=format, instructions=instructions, **settings)
        if bool(path or eval_path) and not servers:
            raise RecipeError("mcp/tasks: questions of your own need `servers` that answer them")
        if servers and not (path or eval_path):
            raise RecipeError("mcp/tasks: `servers` need questions: give `path` or `eval_path`")
        self.paths = {"train": path, "eval": eval_path}
        self.grade = grade
        self.per_episode = per_episode
        self._builtin = not servers
        self._servers = McpTools(servers or (_warehouse(),), shared=not per_episode)
        self._made: tuple[Tool, ...] | None = None

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """By copying where connections are shared, else by replay."""
        return "replay" if self.per_episode else "copy"

    @property
    def tools(self) -> tuple[Tool, ...]:  # type: ignore[override]
        """The servers' tools; connects to them the first time in a process."""
        if self._made is None:
            self._made = self._servers.tools
        return self._made

    def tasks(self, split: str) -> Sequence[Task]:
        """The questions of the split."""
        if self._builtin:
            return _questions(split) if split in self.paths else ()
        path = self.paths.get(split, "")
        if not path:
            return ()
        return [_task(row, split, number) for number, row in enumerate(read_rows(path))]

    def prompt(self, task: Task) -> str:
        """The question."""
        return str(task.data["question"])

    def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        """The grade of the answer; 0 where none was given."""
        if answer is None:
            return {"correct": 0.0}
        return {"correct": _GRADERS[self.grade](answer, task.data["answers"])}

    def gold_action(self, task: Task, turn: int) -> str | None:
        """For the built-in questions: ask for the room, ask for the number, answer."""
        item = task.data.get("item")
        if item is None:
            return None
        room, pieces = stock()[item]
        if turn == 0:
            return self.call_format.call("locate", {"item": item})
        if turn == 1:
            return self.call_format.call("count", {"item": item, "room": room})
        return self.call_format.answer(str(pieces))

    async def begin(self, task: Task, *, seed: int) -> None:
        """Start with servers that no other episode has touched, where they are this one's own."""
        if self.per_episode:
            await self._servers.close()

    def copy_state(self, twin: Self) -> None:
        """The copy holds the shared connections by itself."""
        twin._servers = McpTools(self._servers.servers, shared=True)
        twin._made = None

    async def close(self) -> None:
        """Let go of the connections; the last holder ends them."""
        await self._servers.close()


def _warehouse() -> McpServer:
    # -P: the program's own folder, where modules have names of packages, is not imported from.
    program = str(Path(__file__).with_name("warehouse.py"))
    return McpServer(command=sys.executable, args=("-P", program))


def _questions(split: str) -> list[Task]:
    items = list(stock())
    first = 0 if split == "train" else 1
    return [
        Task(
            f"{split}-{item}",
            {
                "question": f"How many pieces of the {item} are in the room where it is kept?",
                "answers": [str(stock()[item][1])],
                "item": item,
            },
        )
        for item in items[first::2]
    ]


def _task(row: Row, split: str, number: int) -> Task:
    if "answers" in row.data:
        answers = list(row.texts("answers"))
    else:
        given = row.value("answer")
        answers = [str(given) if isinstance(given, (int, float)) else row.text("answer")]
    if not answers:
        raise DataError(f"{row.place}: 'answers' is empty")
    name = row.id() if "id" in row.data else f"{split}-{number}"
    return Task(re.sub(r"\s+", " ", name), {"question": row.text("question"), "answers": answers})

"""A small domain of our own, a list of things to do; its tools are those of tau2-bench's mock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from agentrl.core.errors import ToolError
from agentrl.core.tool import ToolFunction

from .database import Record
from .domain import Domain

Status: TypeAlias = Literal["pending", "completed"]

POLICY = """You help the members of a team with their list of things to do.

- Look people up before you add anything for them: only people of the team have a list.
- Say what you are going to add or change and ask whether that is right, unless the user has said so already.
- A thing is either pending or completed. You cannot delete one: transfer the user to a human agent.
- When all is done, say what you did, in one message without a question."""  # noqa: E501

_NAMES = ("Ada", "Ben", "Cleo", "Dara", "Emil", "Fay", "Gus", "Hana")
_VERBS = ("call", "write to", "visit", "pay", "thank")
_WHOM = ("the printer", "the bank", "the new tenant", "the library", "the gardener", "the school")


class Desk(Domain):
    """People, and what each has to do."""

    tables = ("tasks", "users")

    @property
    def functions(self) -> Sequence[ToolFunction]:
        """Four tools."""
        return (
            self.get_users,
            self.create_task,
            self.update_task_status,
            self.transfer_to_human_agents,
        )

    def get_users(self) -> list[Record]:
        """List all people with the ids of their tasks."""
        return list(self.db.rows("users"))

    def create_task(self, user_id: str, title: str, description: str | None = None) -> Record:
        """Add a task for somebody.

        Args:
            user_id: Such as 'user_1'.
            title: A few words.
            description: More of it, if there is more.
        """
        self.found("users", user_id, "user")
        task_id = f"task_{sum(1 for _ in self.db.rows('tasks')) + 1}"
        task: Record = {
            "task_id": task_id,
            "title": title,
            "description": description,
            "status": "pending",
        }
        self.db.put("tasks", task_id, task)
        self.db.edit("users", user_id)["tasks"].append(task_id)
        return task

    def update_task_status(self, task_id: str, status: Status) -> Record:
        """Change whether a task is done.

        Args:
            task_id: Such as 'task_1'.
            status: What it is from now on.
        """
        if self.db.get("tasks", task_id) is None:
            raise ToolError(f"task {task_id} not found")
        task = self.db.edit("tasks", task_id)
        task["status"] = status
        return task


def tables() -> dict[str, dict[str, Record]]:
    """Eight people with a task each."""
    rng = random.Random("agentrl desk")
    tasks = {
        f"task_{n}": {
            "task_id": f"task_{n}",
            "title": f"{rng.choice(_VERBS)} {rng.choice(_WHOM)}",
            "description": None,
            "status": "pending",
        }
        for n in range(1, len(_NAMES) + 1)
    }
    users = {
        f"user_{n}": {"user_id": f"user_{n}", "name": name, "tasks": [f"task_{n}"]}
        for n, name in enumerate(_NAMES, start=1)
    }
    return {"tasks": tasks, "users": users}


def rows(split: str) -> list[dict[str, Any]]:
    """Tasks in tau2's form: to add something, to finish something, or both."""
    base = tables()
    people = list(base["users"].values())
    chosen = {"train": people[:6], "eval": people[6:]}.get(split, [])
    found = []
    for person in chosen:
        mine = base["tasks"][person["tasks"][0]]
        rng = random.Random(f"agentrl desk {person['name']}")
        title = f"{rng.choice(_VERBS)} {rng.choice(_WHOM)} again"
        add = {"name": "create_task", "arguments": {"user_id": person["user_id"], "title": title}}
        done = {
            "name": "update_task_status",
            "arguments": {"task_id": mine["task_id"], "status": "completed"},
        }
        look = {"name": "get_users", "arguments": {}}
        who = f"You are {person['name']}."
        wants = {
            "add": (f"add the task '{title}' to your list", [look, add], [title]),
            "done": (
                f"have your task '{mine['title']}' marked as completed",
                [look, done],
                [mine["title"]],
            ),
            "both": (
                f"add the task '{title}' and have '{mine['title']}' marked as completed",
                [look, add, done],
                [title, mine["title"]],
            ),
        }
        for kind, (want, actions, said) in wants.items():
            scenario = f"{who} You want to {want}. You want to hear what was done."
            found.append(
                {
                    "id": f"{person['name'].lower()}-{kind}",
                    "user_scenario": {"instructions": scenario},
                    "evaluation_criteria": {"actions": actions, "communicate_info": said},
                }
            )
    return found

"""Tasks of the shell environment: what a row of a data set must hold, and our own tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import Field, ValidationError, model_validator

from agentrl.core.datasets import Row, read_once, read_rows
from agentrl.core.errors import DataError
from agentrl.core.settings import Settings
from agentrl.core.types import Task

DONE = "done"
"""The answer that submits, where a task asks for no other."""


class RunCheck(Settings):
    """A bash `command` that the checker runs in the task's folder, and what it must give.

    `files` are written first (hidden tests, say), over those of the policy. `stdout` is compared
    outside of the sandbox, but for space at its end; None: it may be anything.
    """

    command: str = Field(min_length=1)
    stdin: str = ""
    files: Mapping[str, str] = {}
    exit: int = 0
    stdout: str | None = None


class Check(Settings):
    """What must hold at the end; all of it.

    `expect` are files with their whole content, or None for what must not be there; `modes` their
    permissions in octal; `links` symbolic links with their targets; `listing` all paths but
    folders, no more and no fewer; `runs` commands, in order; `answer` the answer, but for letter
    case and space around it.
    """

    expect: Mapping[str, str | None] = {}
    modes: Mapping[str, str] = {}
    links: Mapping[str, str] = {}
    listing: Sequence[str] | None = None
    runs: Sequence[RunCheck] = ()
    answer: str = DONE

    @model_validator(mode="after")
    def _says_something(self) -> Check:
        parts = (self.expect, self.modes, self.links, self.listing, self.runs)
        if not any(parts) and self.answer == DONE:
            raise ValueError("the check asks for nothing: every end would pass it")
        return self


class ShellRow(Settings):
    """A task: files to change, and a check to pass. `setup` are bash commands that prepare them."""

    id: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    files: Mapping[str, str] = {}
    setup: Sequence[str] = ()
    check: Check
    solution: Sequence[str] = ()


def tasks_of(rows: Sequence[Row]) -> list[Task]:
    """A task for each row.

    Raises:
        DataError: naming the row, the key and what was found there.
    """
    tasks: dict[str, Task] = {}
    for row in rows:
        try:
            read = ShellRow.model_validate({**row.data, "id": row.id()})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "row"
            said = first["msg"][0].lower() + first["msg"][1:]
            raise DataError(f"{row.place}: {where}: {said}") from error
        if read.id in tasks:
            raise DataError(f"{row.place}: id {read.id!r} is already that of an earlier row")
        tasks[read.id] = Task(read.id, read.model_dump(mode="json", exclude={"id"}))
    return list(tasks.values())


@read_once
def read_tasks(source: str) -> Sequence[Task]:
    """The tasks of a file or of a hub's data set; read again where the file has changed.

    Raises:
        DataError: the file is missing, empty or malformed.
    """
    found = tasks_of(list(read_rows(source, name="file of shell tasks")))
    if not found:
        raise DataError(f"{source}: the file of shell tasks is empty")
    return found


@lru_cache(maxsize=2)
def own_tasks(split: str) -> Sequence[Task]:
    """Our own tasks of a split."""
    text = (resources.files(__package__) / "shell_tasks.yaml").read_text("utf-8")
    rows = yaml.safe_load(text).get(split, [])
    return tasks_of([Row(f"shell_tasks.yaml: {split}[{n}]", row) for n, row in enumerate(rows)])

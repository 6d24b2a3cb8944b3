"""What a problem is, and the task that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentrl.core.types import Task
from agentrl.graders.math import Gold


class Problem(NamedTuple):
    """A problem with its right answer.

    `worked` is a solution in words, without its last line, and `result` what it comes to (the
    answer itself, unless the data set's own solution says otherwise). `code` is Python that prints
    the result. `several`, `error` and `unit` are those of `agentrl.graders.math.Gold`.
    """

    id: str
    text: str
    answer: str
    worked: str = ""
    result: str = ""
    code: str = ""
    several: bool = False
    error: float | None = None
    unit: str = ""

    def task(self) -> Task:
        """The task; all of it is plain data."""
        data = self._asdict()
        del data["id"]
        return Task(self.id, {**data, "result": self.result or self.answer})


def gold_of(data: Mapping[str, Any]) -> Gold:
    """The gold answer of a task's data; only `answer` has to be there."""
    return Gold(
        answer=data["answer"],
        several=data.get("several", False),
        error=data.get("error"),
        unit=data.get("unit", ""),
    )

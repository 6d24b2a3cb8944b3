"""Tasks in OSWorld's JSON form: read, and parted into those that run here and those that do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentrl.core.datasets import Row, read_rows
from agentrl.core.errors import DataError
from agentrl.core.types import Task

from .evaluation import refusals as evaluator_refusals
from .sources import Sources
from .steps import refusals as step_refusals

BUILT_IN = Path(__file__).parent / "suite.jsonl"


class Refused(NamedTuple):
    """A task that cannot run here, and every reason."""

    id: str
    reasons: tuple[str, ...]


class Suite(NamedTuple):
    """Tasks of a file in its order."""

    tasks: tuple[Task, ...]
    refused: tuple[Refused, ...]


def read_suite(source: str | Path, *, sources: Sources, split: str | None = None) -> Suite:
    """The tasks of a file of OSWorld's rows; with `split`, those that name it.

    A row has `id`, `instruction`, `evaluator` and often `config` (none: nothing to set up). Ours
    also have `split`, and `solution`: turns of actions in which an `element` may be written
    `"role=name"`.

    Raises:
        DataError: a row that is not of this form, by file and line.
    """
    return _sorted_out(_rows(source, split), sources)


def _rows(source: str | Path, split: str | None) -> Iterator[Task]:
    for row in read_rows(source, name="file of desktop tasks"):
        if split is None or row.data.get("split") == split:
            yield _task(row)


def _sorted_out(tasks: Iterable[Task], sources: Sources) -> Suite:
    able: list[Task] = []
    refused: list[Refused] = []
    for task in tasks:
        reasons = (
            *step_refusals(task.data["config"], sources),
            *evaluator_refusals(task.data["evaluator"], sources),
        )
        if reasons:
            refused.append(Refused(task.id, tuple(dict.fromkeys(reasons))))
        else:
            able.append(task)
    return Suite(tuple(able), tuple(refused))


def _task(row: Row) -> Task:
    evaluator = row.value("evaluator")
    config = row.data.get("config") or []
    if not isinstance(evaluator, Mapping) or "func" not in evaluator:
        raise DataError(f"{row.place}: 'evaluator' must be an object with 'func'")
    for name, steps in (("config", config), ("postconfig", evaluator.get("postconfig") or [])):
        if not isinstance(steps, list) or not all(_is_step(one) for one in steps):
            raise DataError(
                f"{row.place}: {name!r} must be a list of objects with 'type' and 'parameters'"
            )
    data: dict[str, Any] = {
        "instruction": row.text("instruction"),
        "config": config,
        "evaluator": evaluator,
    }
    if "solution" in row.data:
        data["solution"] = row.data["solution"]
    return Task(row.id(), data)


def _is_step(step: object) -> bool:
    return (
        isinstance(step, Mapping)
        and isinstance(step.get("type"), str)
        and isinstance(step.get("parameters", {}), Mapping)
    )

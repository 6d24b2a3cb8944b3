"""Tasks in tau2-bench's form: what the user wants, the state it starts from and what is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agentrl.core.datasets import Row, read_rows, shown
from agentrl.core.errors import DataError
from agentrl.core.types import Task

from . import desk
from .airline import Airline
from .database import Tables
from .desk import Desk
from .domain import Domain
from .retail import Retail

DomainName: TypeAlias = Literal["airline", "desk", "retail"]

DOMAINS: Mapping[DomainName, type[Domain]] = {"airline": Airline, "desk": Desk, "retail": Retail}
"""The domains that a recipe can name."""

BASES = ("DB", "COMMUNICATE", "ACTION", "NL_ASSERTION")
"""What a reward can be based on; tau2's ENV_ASSERTION belongs to its telecom domain."""

_DEFAULT_BASIS = ["DB", "COMMUNICATE"]
_SCENARIO = (
    ("Why you call", "reason_for_call"),
    ("What you know", "known_info"),
    ("What you do not know", "unknown_info"),
    ("How you behave", "task_instructions"),
)


@lru_cache(maxsize=8)
def read_tables(domain: DomainName, db: str) -> Tables:
    """The records of `domain` by table and id; `db` is a file, or a folder with one for each table.

    Raises:
        DataError: naming the file and what was found there.
    """
    if not db:
        return desk.tables()
    path = Path(db)
    tables = DOMAINS[domain].tables
    if path.is_dir():
        found = {table: _object(_only(path, table)) for table in tables}
    else:
        found = _object(path)
    for table in tables:
        records = found.get(table)
        if not isinstance(records, dict) or not all(
            isinstance(record, dict) for record in records.values()
        ):
            raise DataError(f"{db}: {table!r} must be an object of records, got {shown(records)}")
    return {table: found[table] for table in tables}


def _only(folder: Path, table: str) -> Path:
    found = sorted(folder.glob(f"*{table}.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: one file *{table}.json was expected, found {names}")
    return found[0]


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such database") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: a database must be a JSON object, got {shown(found)}")
    return found


@cache
def read_policy(path: str) -> str:
    """The agent's policy.

    Raises:
        DataError: there is no such file.
    """
    if not path:
        return desk.POLICY
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the policy cannot be read: {error}") from error


@lru_cache(maxsize=8)
def read_tasks(path: str, domain: DomainName) -> Sequence[Task]:
    """The tasks of a file in its order.

    Raises:
        DataError: naming file, line and what was found there.
    """
    tools = {function.__name__ for function in DOMAINS[domain].over({}).functions}
    return [task_of(row, tools) for row in read_rows(path, name="task file")]


def task_of(row: Row, tools: set[str]) -> Task:
    """A row as a task, checked; `tools` are the names that its actions may have."""
    criteria = _mapping(row, row.data.get("evaluation_criteria"), "evaluation_criteria")
    basis = criteria.get("reward_basis") or _DEFAULT_BASIS
    for one in basis:
        if one not in BASES:
            raise DataError(
                f"{row.place}: reward_basis has {one!r}, which this environment cannot check. "
                f"Known: {', '.join(BASES)}"
            )
    actions = [_action(row, action, tools) for action in criteria.get("actions") or []]
    initial = _mapping(row, row.data.get("initial_state"), "initial_state")
    data = {
        "scenario": _scenario(row),
        "actions": actions,
        "communicate": [str(one) for one in criteria.get("communicate_info") or []],
        "assertions": [str(one) for one in criteria.get("nl_assertions") or []],
        "basis": list(basis),
        "changes": (initial.get("initialization_data") or {}).get("agent_data") or {},
        "before": [
            _action(row, action, tools) for action in initial.get("initialization_actions") or []
        ],
        "history": initial.get("message_history") or [],
    }
    return Task(row.id(), data)


def _scenario(row: Row) -> str:
    scenario = _mapping(row, row.value("user_scenario"), "user_scenario")
    instructions = scenario.get("instructions")
    pieces = [str(scenario["persona"]).strip()] if scenario.get("persona") else []
    if isinstance(instructions, str):
        pieces.append(instructions.strip())
    else:
        told = _mapping(row, instructions, "user_scenario.instructions")
        pieces += [
            f"{title}: {str(told[key]).strip()}" for title, key in _SCENARIO if told.get(key)
        ]
    if not any(pieces):
        raise DataError(f"{row.place}: user_scenario says nothing")
    return "\n".join(pieces)


def _action(row: Row, action: object, tools: set[str]) -> dict[str, Any]:
    found = _mapping(row, action, "an action")
    # What prepares a state is named `func_name` there.
    name, arguments = found.get("name") or found.get("func_name"), found.get("arguments")
    if found.get("env_type", "assistant") != "assistant":
        raise DataError(f"{row.place}: {name!r} acts for the user, which has no tools here")
    if name not in tools:
        raise DataError(f"{row.place}: an action calls {name!r}, which is no tool of the domain")
    if not isinstance(arguments, dict):
        raise DataError(f"{row.place}: the action {name} has the arguments {shown(arguments)}")
    return {"name": name, "arguments": arguments, "compare": found.get("compare_args")}


def _mapping(row: Row, value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"{row.place}: {what} must be an object, got {shown(value)}")
    return value

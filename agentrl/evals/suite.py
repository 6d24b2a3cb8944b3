"""What a suite is: a named, versioned set of tasks with what plays and grades them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from agentrl.core.datasets import data_file
from agentrl.core.errors import DataError

Family: TypeAlias = Literal[
    "math", "code", "qa", "deep-search", "games", "web", "desktop", "service", "recipe"
]


class Rows(NamedTuple):
    """Where the rows of one setting of the environment come from.

    `hub` is `owner/name@split` or `owner/name/config@split`, `file` the path below the folder given
    by `--data`, with `@split` where a file holds several (see `agentrl.core.datasets`). One of them
    may be empty where there is none.
    """

    hub: str = ""
    file: str = ""


class Reference(NamedTuple):
    """A published value: whose, of which metric, and where it stands (paper and table, or page)."""

    policy: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named, versioned set of tasks with a split, an environment that grades, and a prompt.

    `version` grows whenever a score could change: other rows, prompt, limits or grader. `env` and
    `args` make the environment, whose settings named in `rows` are filled from the hub or from a
    folder. `score` is the reward component that decides (in [0, 1]); `also` names the others that
    a report shows. `samples` per task and `temperature` are the suite's custom, `max_turns` and
    `max_tokens_per_turn` what its tasks need. `train` are rows that must not be among its tasks.
    `unchecked` says why gold answers cannot be played (slippery ice, a live web); empty: they can.
    `gold_fails` are the ids of tasks whose own gold answer is wrong, `spoiled_solves` those of
    tasks that a wrong answer made by `agentrl.core.spoil` solves nevertheless, `in_train` those of
    tasks that stand in `train` too, each with the reason. `size` is the number of tasks where it is
    known, `needs` what else must be installed. `given` are settings of the environment that whoever
    evaluates gives (`suite.args.KEY=...`: a server, a search API), with a value that takes their
    place where no turn of a policy is played: in checks and where a prompt is shown.
    """

    name: str
    version: int = 1
    title: str
    family: Family
    env: str
    args: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    train: Rows | None = None
    split: str = "eval"
    score: str = "correct"
    also: tuple[str, ...] = ()
    samples: int = 1
    temperature: float = 0.0
    max_turns: int = 8
    max_tokens_per_turn: int = 2048
    licence: str = ""
    source: str = ""
    references: tuple[Reference, ...] = ()
    unchecked: str = ""
    gold_fails: Mapping[str, str] = field(default_factory=dict)
    spoiled_solves: Mapping[str, str] = field(default_factory=dict)
    in_train: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    needs: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""

    @property
    def tag(self) -> str:
        """Name and version, as results cite it: `gsm8k@1`."""
        return f"{self.name}@{self.version}"

    def env_args(self, data: Path | None = None) -> dict[str, Any]:
        """The environment's settings, with rows from the folder `data` or else from the hub.

        Raises:
            DataError: the rows are not in `data`, or are on no hub and no folder was given.
        """
        found = {setting: self.place(rows, data) for setting, rows in self.rows.items()}
        return {**self.args, **found}

    def place(self, rows: Rows, data: Path | None) -> str:
        """Where `rows` are, as `agentrl.core.datasets.read_rows` takes it; as `env_args`."""
        if data is None:
            if not rows.hub:
                raise DataError(
                    f"suite {self.name!r} is on no hub: name the folder that holds {rows.file} "
                    "with --data"
                )
            return f"hub:{rows.hub}"
        if not rows.file:
            raise DataError(f"suite {self.name!r} is read from the hub only; leave --data out")
        path = data / rows.file
        if not path.exists() and not data_file(path).is_file():
            raise DataError(
                f"suite {self.name!r}: no file {data_file(path)}; `agentrl suite show {self.name}` "
                "says where its rows come from"
            )
        return str(path)

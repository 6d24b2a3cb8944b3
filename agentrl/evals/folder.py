"""The folder of an evaluation: its files by name, who writes in it, and what stands in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from agentrl.core.errors import DataError, SetupError
from agentrl.evals.plan import EvalPlan
from agentrl.evals.results import Results


class EvalFolder:
    """Paths of an evaluation's files; makes none of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "plan.json"
        self.samples = path / "samples.jsonl"
        self.sittings = path / "sittings.jsonl"
        self.results = path / "results.json"
        self.images = path / "images"
        self._lock = path / ".lock"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder, made if need be, so that no other process writes in it meanwhile.

        The lock goes with its process, however that ends.

        Raises:
            SetupError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 64).decode(errors="replace") or "unknown"
                raise SetupError(
                    f"{self.path}: another process ({holder}) is writing this evaluation; wait "
                    "for it, end it, or choose another --out"
                ) from None
            os.truncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()} on {os.uname().nodename}".encode())
            yield
        finally:
            os.close(descriptor)

    def read_plan(self) -> EvalPlan:
        """The plan. Raises DataError where there is none, or it cannot be read."""
        if not self.plan.is_file():
            raise DataError(f"{self.path} holds no evaluation (it has no {self.plan.name})")
        try:
            return EvalPlan.model_validate_json(self.plan.read_bytes())
        except ValidationError as error:
            raise DataError(_unread(self.plan, error)) from error

    def read_results(self) -> Results:
        """The results. Raises DataError where there are none, or they cannot be read."""
        if not self.results.is_file():
            raise DataError(
                f"{self.path} holds no {self.results.name}; `agentrl eval --resume --out "
                f"{self.path}` makes it"
            )
        try:
            return Results.model_validate_json(self.results.read_bytes())
        except ValidationError as error:
            raise DataError(_unread(self.results, error)) from error


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all: under a temporary name, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unread(path: Path, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{path}: cannot be read: {where}: {first['msg']}"

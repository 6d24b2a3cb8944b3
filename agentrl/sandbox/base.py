"""The sandbox contract: hostile programs in, a typed outcome out, with nothing left behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from agentrl.core.env import Forkable
from agentrl.core.settings import Settings


class Limits(Settings):
    """What one run may use. A run that passes a limit is ended and says which.

    `wall_seconds` and `cpu_seconds` are of one run (of one `execute` in a session); `memory_mb` of
    all its processes together where the sandbox can tell, else of each; `processes` at once;
    `open_files` of each process; `disk_mb` of everything that it may write; `output_chars` of
    standard output and of standard error each (what is beyond is dropped, with a mark).
    """

    wall_seconds: float = Field(default=10.0, gt=0.0)
    cpu_seconds: float = Field(default=10.0, gt=0.0)
    memory_mb: int = Field(default=512, ge=32)
    processes: int = Field(default=32, ge=1)
    open_files: int = Field(default=64, ge=16)
    disk_mb: int = Field(default=64, ge=1)
    output_chars: int = Field(default=16_000, ge=100)


class RunStatus(StrEnum):
    """How a run ended. All but `OK` are the program's own doing, never the sandbox's."""

    OK = "ok"
    ERROR = "error"
    """An exception that nothing caught, or an exit code that is not 0."""
    WALL_LIMIT = "wall_limit"
    CPU_LIMIT = "cpu_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    """Ended because it would not stop writing (far beyond `output_chars`)."""
    KILLED = "killed"
    """Ended by a signal that was none of the limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run said. `exit_code` is None where it was ended; `seconds` are of wall time.

    `cut` tells that `stdout` or `stderr` is not all of it. `restarted` tells that a session lost
    its interpreter in this run: its variables are gone, its files are there.
    """

    status: RunStatus
    stdout: str
    stderr: str
    exit_code: int | None = None
    seconds: float = 0.0
    cut: bool = False
    restarted: bool = False


class Session(ABC):
    """A live interpreter with a working folder, in which a policy works turn by turn."""

    @abstractmethod
    async def execute(self, code: str, *, limits: Limits | None = None) -> RunResult:
        """Run Python that sees what earlier runs defined; an expression at its end is shown.

        An interpreter that the code ends is started anew for the next run (`restarted`).
        """

    @abstractmethod
    async def run(
        self, argv: Sequence[str], *, stdin: str = "", limits: Limits | None = None
    ) -> RunResult:
        """Run a program in the working folder; it does not see the interpreter's variables."""

    @abstractmethod
    async def read(self, path: str) -> bytes:
        """A file of the working folder; `FileNotFoundError` where there is none."""

    @abstractmethod
    async def write(self, path: str, content: bytes) -> None:
        """Write a file below the working folder, its folders too; never through a link out."""

    @abstractmethod
    async def fork(self) -> Session:
        """A second session in the same state, variables and files; neither sees the other's runs.

        Only where the sandbox's `forkable` is `"copy"`.
        """

    @abstractmethod
    async def close(self) -> None:
        """End every process of the session and free its folder; may be called twice."""


class Sandbox(ABC):
    """Runs programs that may do anything; what it cannot protect against its docstring says.

    Every method raises `EnvError` where the sandbox itself fails, and `SetupError` at the first use
    where the machine lacks what it needs, naming the command that brings it.
    """

    forkable: Forkable
    """How its sessions fork: `"copy"`, or `"replay"` (the env plays its runs again)."""

    @abstractmethod
    async def run_python(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run a program of its own, with nothing left of any other; `files` stand beside it."""

    @abstractmethod
    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run any program that the sandbox holds, in a fresh folder with `files`."""

    @abstractmethod
    async def open(self, files: Mapping[str, bytes] | None = None) -> Session:
        """A new session with `files` in its working folder."""

    @abstractmethod
    async def close(self) -> None:
        """End everything that it started; may be called twice."""

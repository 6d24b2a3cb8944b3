"""The Python tool: runs code in a sandbox, stateless or in a session that a fork takes along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

from agentrl.core.errors import EnvError
from agentrl.core.tool import Tool
from agentrl.core.tool_env import ToolEnv
from agentrl.sandbox import (
    AnySandbox,
    BubblewrapSettings,
    Limits,
    RunResult,
    RunStatus,
    Session,
    shared,
)

_PLACE = re.compile(r'File "/[^"]*/(site-packages|python3\.\d+)/')
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+>")
_CAUSES = {
    RunStatus.WALL_LIMIT: "it ran longer than {0.wall_seconds:g} s",
    RunStatus.CPU_LIMIT: "it used more than {0.cpu_seconds:g} s of processor time",
    RunStatus.MEMORY_LIMIT: "it needed more than {0.memory_mb} MB of memory",
    RunStatus.OUTPUT_LIMIT: "it would not stop writing",
    RunStatus.KILLED: "it was ended by a signal",
}
_RESTARTED = "[the interpreter was started anew: its variables are gone, its files are there]"
_SLACK = 20.0
"""Seconds beyond the wall limit in which a sandbox must answer, waiting for a place included."""


def told(result: RunResult, limits: Limits, *, max_chars: int = 8000) -> str:
    """What a policy is shown of a run: output, error, and for which limit it was ended.

    Of standard output the beginning is kept, of standard error (whose last line says what went
    wrong) the end, at most half. Paths of the machine and addresses of objects are left out:
    they vary, and an observation must not.
    """
    stderr = _tail(_plain(result.stderr).rstrip("\n"), max_chars // 2)
    notes = []
    if result.status in _CAUSES:
        notes.append(f"[ended: {_CAUSES[result.status].format(limits)}]")
    elif result.exit_code and not stderr:
        notes.append(f"[exit code {result.exit_code}]")
    if result.restarted:
        notes.append(_RESTARTED)
    room = max_chars - len(stderr) - sum(len(note) + 1 for note in notes) - 1
    stdout = _head(_plain(result.stdout).rstrip("\n"), max(room, 0))
    return "\n".join(part for part in (stdout, stderr, *notes) if part) or "(no output)"


def python_tool(
    sandbox: AnySandbox,
    *,
    limits: Limits | None = None,
    max_result_chars: int = 8000,
) -> Tool:
    """A tool `python(code)` whose every call is a program of its own; it has no state.

    Only what a program prints is shown. `limits` are those of the sandbox unless given.
    """
    allowed = limits or sandbox.limits

    async def python(code: str) -> str:
        """Run a Python program and read what it prints. Nothing is kept between calls.

        Args:
            code: The program; print what you want to see.
        """
        result = await shared(sandbox).run_python(code, limits=allowed)
        return told(result, allowed, max_chars=max_result_chars)

    return Tool.of(
        python, timeout=allowed.wall_seconds + _SLACK, max_result_chars=max_result_chars + 200
    )


class PythonSessionEnv(ToolEnv):
    """A `ToolEnv` with one live interpreter, which is copied where the environment is forked.

    A subclass has `self.python_tool()` among its `tools` (a property) and opens the session in
    `begin`: `await self.open_session(files)`. It lasts until the next episode or `close`; `fork`
    takes its variables and files along.
    """

    sandbox: AnySandbox = BubblewrapSettings()
    _session: Session | None = None

    @property
    def session(self) -> Session:
        """The session of this episode.

        Raises:
            EnvError: none was opened.
        """
        if self._session is None:
            raise EnvError(f"{type(self).__name__} has no session: `begin` opened none")
        return self._session

    async def open_session(self, files: Mapping[str, bytes] | None = None) -> None:
        """Begin with a new interpreter and `files` in its folder; the last session is closed."""
        await self.close_session()
        self._session = await shared(self.sandbox).open(files)

    async def close_session(self) -> None:
        """End the interpreter; may be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def python(self, code: str) -> str:
        """Run Python in your session: variables, imports and files stay for the next call.

        Args:
            code: The program; what it prints and the value of an expression at its end are shown.
        """
        return told(await self.session.execute(code), self.sandbox.limits)

    def python_tool(self) -> Tool:
        """`python` as a tool of this environment."""
        return Tool.of(self.python, timeout=self.sandbox.limits.wall_seconds + _SLACK)

    async def fork(self) -> Self:
        """A copy of this environment at this turn, with a copy of its interpreter."""
        twin = await super().fork()
        twin._session = None
        if self._session is not None:
            twin._session = await self._session.fork()
        return twin

    async def close(self) -> None:
        """End the session and free what else the environment holds."""
        await self.close_session()
        await super().close()


def _plain(text: str) -> str:
    return _ADDRESS.sub("at 0x...>", _PLACE.sub(r'File "\1/', text))


def _head(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    return f"{text[: max(0, room - 60)]}\n[cut: {len(text) - max(0, room - 60)} characters]"


def _tail(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    return f"[cut: {len(text) - max(0, room - 60)} characters]\n{text[-max(1, room - 60) :]}"

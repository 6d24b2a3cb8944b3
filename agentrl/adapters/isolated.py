"""An environment in a process of another interpreter, so that packages never meet."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from agentrl.adapters.connection import Asker, Connection, Deadlines
from agentrl.adapters.elsewhere import Elsewhere, EnvElsewhere, check_seconds
from agentrl.adapters.wire import Json, check_plain, plain
from agentrl.core.errors import EnvError, RecipeError, SetupError
from agentrl.core.threads import in_thread

_CONNECT_SECONDS = 10.0
_PING_SECONDS = 30.0
_TAIL_CHARS = 1000


class _Interpreter(Elsewhere):
    """A process of another interpreter with an environment host in it, started when needed."""

    def __init__(
        self,
        python: str,
        env_id: str,
        settings: Mapping[str, Any],
        pythonpath: Sequence[str],
        *,
        memory_mb: int,
        deadlines: Deadlines,
    ) -> None:
        super().__init__(env_id, deadlines=deadlines)
        check_plain(settings, where=f"settings of {env_id}")
        self._settings = cast("Mapping[str, Json]", plain(settings))
        self._python = python
        self._pythonpath = tuple(pythonpath)
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._asker: Asker | None = None

    def _arguments(self) -> Mapping[str, Json]:
        return self._settings

    def ask(self, operation: str, *arguments: Json) -> Json:
        """The answer to a question; starts the process where it does not run."""
        with self._lock:
            self._start()
            try:
                if self._asker is None:
                    seconds = self.deadlines.open
                    self._asker = Asker(self._socket, self.env_id, self._settings, seconds=seconds)
                return self._asker.ask(operation, 1, *arguments)
            except OSError as error:
                self._drop_asker()
                raise EnvError(f"{self.env_id}: {operation} was lost: {self._ending()}") from error

    async def _connect(self) -> Connection:
        name = f"the process of {self._python}"
        await in_thread(self._start)
        try:
            return await Connection.open(self._socket, name=name, seconds=_CONNECT_SECONDS)
        except (OSError, EnvError):
            # It was killed a moment ago, and the system had not told us yet.
            await in_thread(self._kill)
        await in_thread(self._start)
        try:
            return await Connection.open(self._socket, name=name, seconds=_CONNECT_SECONDS)
        except OSError as error:
            raise EnvError(f"{self.env_id}: {self._ending()}") from error

    async def pick(self) -> Connection:
        """The connection of this event loop; a process that answers nothing is replaced."""
        connection = await super().pick()
        try:
            await connection.call("ping", 0, seconds=_PING_SECONDS, env_id=self.env_id)
        except EnvError:
            if connection.alive:
                self._kill()
            raise
        return connection

    @property
    def _socket(self) -> Path:
        assert self._directory is not None
        return self._directory / "env.sock"

    def _start(self) -> None:
        """See that the process runs and listens; `SetupError` when it cannot."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._drop_asker()
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="agentrl-interpreter-"))
                atexit.register(self._end)
            self._socket.unlink(missing_ok=True)
            kept = {
                key: value
                for key, value in os.environ.items()
                if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
            }
            if self._pythonpath:
                kept["PYTHONPATH"] = os.pathsep.join(self._pythonpath)
            command = (self._python, "-m", "agentrl.adapters.envhost", "--socket", self._socket)
            bounds = ("--parent", str(os.getpid()), "--memory-mb", str(self._memory_mb))
            with (self._directory / "output").open("wb") as output:
                try:
                    self._process = subprocess.Popen(
                        (*command, *bounds),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=kept,
                        start_new_session=True,
                    )
                except OSError as error:
                    raise SetupError(
                        f"{self.env_id}: {self._python!r} is no interpreter that can be started: "
                        f"{error.strerror}"
                    ) from error
            self._until_it_listens()

    def _until_it_listens(self) -> None:
        assert self._process is not None
        until = time.monotonic() + self.deadlines.open
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise SetupError(
                    f"{self.env_id}: {self._ending()}. The interpreter needs agentrl: "
                    f"{self._python} -m pip install agentrl"
                )
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as tried:
                tried.connect(str(self._socket))
                return
            time.sleep(0.02)
        self._kill()
        raise EnvError(f"{self.env_id}: {self._python} did not listen in time")

    def _ending(self) -> str:
        """How the process ended, in words."""
        assert self._process is not None and self._directory is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        said = (self._directory / "output").read_bytes().decode(errors="replace").strip()
        lines = " | ".join(said[-_TAIL_CHARS:].splitlines()[-4:])
        code = self._process.poll()
        how = "still runs" if code is None else f"ended with code {code}"
        return f"the process of {self._python} {how}" + (f"; its last words: {lines}" * bool(lines))

    def _drop_asker(self) -> None:
        if self._asker is not None:
            self._asker.close()
            self._asker = None

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()

    def _end(self) -> None:
        self._drop_asker()
        self._kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


class IsolatedEnv(EnvElsewhere):
    """An environment in a process of another interpreter: `isolated:/venv/bin/python:ENV_ID`.

    Observation, action, reward, ends, data: the environment's. So are tool schemas, stop strings,
    gold actions and the way it forks.

    The interpreter, mostly that of a virtual environment, needs agentrl and what the environment
    needs, so that its dependencies never meet those of this process. `settings` are the
    environment's; `pythonpath` are folders that the interpreter imports from besides its own. The
    envs of one process that have the same id and settings share a process, which is started when
    it is needed, again after it died, and ends with this one. `memory_mb` ends it when it grows
    larger (0: never).
    """

    def __init__(
        self,
        id: str,
        *,
        settings: Mapping[str, Any] | None = None,
        pythonpath: Sequence[str] = (),
        memory_mb: int = 0,
        open_seconds: float = 60.0,
        reset_seconds: float = 120.0,
        step_seconds: float = 120.0,
    ) -> None:
        python, colon, env_id = id.partition(":")
        if not colon or not python or not env_id:
            raise RecipeError(
                f"isolated:{id}: an interpreter and an environment are needed, as in "
                "isolated:/path/to/venv/bin/python:search/facts"
            )
        check_seconds(f"isolated:{id}", open_seconds, reset_seconds, step_seconds)
        deadlines = Deadlines(open=open_seconds, reset=reset_seconds, step=step_seconds)
        told = json.dumps(settings or {}, sort_keys=True, default=repr)
        key = (python, env_id, told, tuple(pythonpath), memory_mb, deadlines, os.getpid())
        with _interpreters_lock:
            if key not in _interpreters:
                _interpreters[key] = _Interpreter(
                    python,
                    env_id,
                    settings or {},
                    pythonpath,
                    memory_mb=memory_mb,
                    deadlines=deadlines,
                )
            super().__init__(_interpreters[key])


_interpreters: dict[tuple[object, ...], _Interpreter] = {}
_interpreters_lock = threading.Lock()

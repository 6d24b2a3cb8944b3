"""The interpreters of `.ci/peers`, or a skip that names the command that makes them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def peer(name: str, program: str = "python") -> str:
    """The path of a program of the virtual environment `name`."""
    folder = Path(os.environ.get("AGENTRL_PEERS", ROOT / ".venv-peers"))
    found = (ROOT / folder).absolute() / name / "bin" / program
    if not (found.parent.parent / ".made").exists():
        pytest.skip(f"there is no virtual environment {found.parent.parent}: run .ci/peers")
    return str(found)


@contextlib.contextmanager
def openenv_server(sessions: int = 16) -> Iterator[str]:
    """The address of an OpenEnv server that runs in its own virtual environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [peer("openenv"), str(HERE / "openenv_server.py"), str(port), str(sessions)]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]})
    try:
        until = time.monotonic() + 120
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)

"""Process 1 of the applications' own namespace: starts programs for the helper outside of it.

What it starts can neither see nor signal the display, the buses and the helper.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
from typing import Any

from .frames import receive, send

PR_SET_DUMPABLE = 4
OUTPUT_BYTES = 1 << 20


def limit(kind: int, value: int) -> None:
    """Lower a resource limit, as far as this process may have it."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def reap() -> None:
    """Take leave of every child that ended."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def start(argv: list[str] | str, cwd: str, output: int) -> subprocess.Popen[bytes]:
    """A program in a session of its own, by its arguments or (a string) through the shell."""
    argv = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
    return subprocess.Popen(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def launch(request: dict[str, Any]) -> dict[str, Any]:
    """Start a program and leave it running."""
    start(request["argv"], request["cwd"], subprocess.DEVNULL)
    return {}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a program to its end, or to the deadline."""
    process = start(request["argv"], request["cwd"], subprocess.PIPE)
    late = False
    try:
        out, err = process.communicate(timeout=request["timeout"])
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            # Somebody outside of its group holds the pipes open.
            out, err = b"", b""
    return {
        "code": None if late else process.returncode,
        "stdout": out[:OUTPUT_BYTES].decode("utf-8", "replace"),
        "stderr": err[:OUTPUT_BYTES].decode("utf-8", "replace"),
    }


def main() -> None:
    """Serve requests of standard input until it ends."""
    requests, answers = os.dup(0), os.dup(1)
    os.set_inheritable(requests, False)
    os.set_inheritable(answers, False)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    limit(resource.RLIMIT_NPROC, int(sys.argv[1]))
    limit(resource.RLIMIT_NOFILE, 4096)
    limit(resource.RLIMIT_CORE, 0)
    send(answers, {"ready": True})
    while True:
        reap()
        if not select.select([requests], [], [], 1.0)[0]:
            continue
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            answer = launch(request) if request["op"] == "launch" else run(request)
        except OSError as error:
            answer = {"refused": f"{error.strerror}: {error.filename}"}
        send(answers, answer)

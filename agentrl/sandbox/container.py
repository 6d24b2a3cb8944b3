"""A bubblewrap container with a warm interpreter in it: how it is started, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from agentrl.core.errors import EnvError, SetupError
from agentrl.sandbox.guest.limits import UNCOUNTED
from agentrl.sandbox.root import may_leave_root

_GUEST = Path(__file__).parent / "guest"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FROM_ETC = ("/etc/ld.so.cache", "/etc/alternatives")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "/home/.tmp": ("/tmp", "/var/tmp"),
    "/home/.shm": ("/dev/shm",),
    "/proc/self/fd": ("/dev/fd",),
    "/proc/self/fd/0": ("/dev/stdin",),
    "/proc/self/fd/1": ("/dev/stdout",),
    "/proc/self/fd/2": ("/dev/stderr",),
}
_ETC = {
    "/etc/passwd": "root:x:0:0:root:/:/bin/false\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
    "/etc/group": "root:x:0:\nuser:x:1000:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/user",
    "USER": "user",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    # One thread: a warm interpreter with more cannot be forked safely.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_START = (
    "import sys; sys.path.insert(0, '/run/sandbox'); "
    "from guest.zygote import main; sys.path.pop(0); main()"
)
_START_SECONDS = 120.0


class Container:
    """A started container; every socket that is handed to it becomes a new family of processes."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        # Its end must not wait for anybody to remember it.
        self.close = weakref.finalize(self, _end, process, control, os.getpid())

    @property
    def alive(self) -> bool:
        """Whether it still takes families."""
        return self._process.poll() is None

    def hand(self, family: socket.socket) -> None:
        """Start a family that serves `family`.

        Raises:
            EnvError: the container has died.
        """
        try:
            socket.send_fds(self._control, [b"+"], [family.fileno()])
        except OSError as error:
            raise EnvError(f"the sandbox's container has died: {error}") from error


async def start_container(preload: Sequence[str], *, processes: int) -> Container:
    """Start a container and wait until its interpreter has imported `preload`.

    Programs in it have at most `processes` processes and threads, all together.

    Raises:
        SetupError: bubblewrap is missing, namespaces are forbidden, or an import fails.
    """
    program = shutil.which("bwrap")
    if sys.platform != "linux" or program is None:
        raise SetupError(
            "the bubblewrap sandbox needs Linux and the program bwrap, which is not installed: "
            "apt-get install bubblewrap (or choose `sandbox: {type: docker}`)"
        )
    ours, theirs = socket.socketpair()
    as_root = may_leave_root()
    with tempfile.TemporaryFile() as errors, contextlib.ExitStack() as opened:
        opened.enter_context(theirs)
        files = {path: _memory_file(text, opened) for path, text in _ETC.items()}
        argv = [program, *_namespaces(as_root=as_root), *_file_system(files), "--"]
        argv += [sys.executable, "-s", "-P", "-c", _START, str(theirs.fileno()), ",".join(preload)]
        argv += [str(processes), "root" if as_root else "user"]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            pass_fds=(theirs.fileno(), *files.values()),
            env={},
            cwd="/",
            # A key press that interrupts the worker must not end its sessions before it does.
            start_new_session=True,
        )
        theirs.close()
        container = Container(process, ours)
        ready = await _first_byte(ours)
        if ready == b"+":
            return container
        container.close()
        errors.seek(0)
        raise SetupError(_explain(errors.read().decode(errors="replace")))


async def _first_byte(control: socket.socket) -> bytes:
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        return await asyncio.wait_for(loop.sock_recv(control, 1), _START_SECONDS)
    except (TimeoutError, OSError):
        return b""


def _end(process: subprocess.Popen[bytes], control: socket.socket, owner: int) -> None:
    control.close()
    if os.getpid() == owner:  # not in a fork of the worker, whose container this is not
        process.kill()
        process.wait()


def _memory_file(text: str, opened: contextlib.ExitStack) -> int:
    descriptor = os.memfd_create("etc")
    opened.callback(os.close, descriptor)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _namespaces(*, as_root: bool) -> list[str]:
    argv = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    argv += ["--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent"]
    argv += ["--new-session", "--clearenv"]
    for name, value in _ENVIRONMENT.items():
        argv += ["--setenv", name, value]
    if as_root:
        # Programs must not run as the machine's root, whom some limits do not bind.
        argv += ["--cap-drop", "ALL"]
        for right in ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID"):
            argv += ["--cap-add", right]
        return [*argv, "--dir", "/proc"]
    return [
        *argv,
        "--unshare-user",
        "--uid",
        "0",
        "--gid",
        "0",
        "--cap-add",
        "ALL",
        "--proc",
        "/proc",
    ]


def _file_system(files: dict[str, int]) -> list[str]:
    argv = ["--dir", "/home", "--dir", "/dev", "--dir", "/etc", "--dir", "/var"]
    for path in _SYSTEM:
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            argv += ["--ro-bind", path, path]
    for path in _FROM_ETC:
        argv += ["--ro-bind-try", path, path]
    for path, descriptor in files.items():
        argv += ["--perms", "0444", "--file", str(descriptor), path]
    for name in _DEVICES:
        argv += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for target, links in _LINKS.items():
        for link in links:
            argv += ["--symlink", target, link]
    for prefix in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix)):
        if not prefix.startswith("/usr/") and prefix != "/usr":
            # Folders on the way are made as open as any; left alone they copy the machine's.
            for folder in reversed(Path(prefix).parents[:-1]):
                argv += ["--perms", "0755", "--dir", str(folder)]
            argv += ["--ro-bind", prefix, prefix]
    argv += ["--perms", "0755", "--dir", "/run", "--perms", "0755", "--dir", "/run/sandbox"]
    return [*argv, "--ro-bind", str(_GUEST), "/run/sandbox/guest", "--remount-ro", "/"]


def _explain(said: str) -> str:
    last = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
    if "ModuleNotFoundError" in last or "ImportError" in last:
        return f"the sandbox's interpreter cannot import what `preload` lists: {last}"
    if UNCOUNTED in last:
        return (
            f"the bubblewrap sandbox could not start: {last}. Run as another user than the "
            "machine's root, or let root have CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID"
        )
    return (
        f"the bubblewrap sandbox could not start: {last}. It needs user namespaces "
        "(sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a Docker container "
        "--security-opt seccomp=unconfined --security-opt systempaths=unconfined), or choose "
        "`sandbox: {type: docker}`"
    )

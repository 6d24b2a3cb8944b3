"""Process 1 of a desktop: starts display, buses and window manager, and answers the worker.

It runs on the system's own Python, which has the bindings of D-Bus and X. The applications live in
a namespace below this one, so that nothing that a policy starts can reach what stands here.
"""

from __future__ import annotations

import base64
import ctypes
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .display import Display, settle
from .frames import receive, send
from .tree import Bus, read

PRIVATE = "/run/agentrl"
CODE = os.path.dirname(os.path.abspath(__file__))
ENTER = "import sys; sys.path.insert(0, '/run'); from desktop import {0}; {0}.main()"
START_SECONDS = 30.0
WATCH_SECONDS = 0.1
WRITTEN_AT = 1577880000
"""The time of every file that a task brings (noon of 1 January 2020): none may show now."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
NOBODY = 65534
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8


class RefusedError(Exception):
    """A request that cannot be done, in words for the worker."""


class Helper:
    """Everything of one desktop."""

    def __init__(
        self, requests: int, width: int, height: int, memory_mb: int, processes: int
    ) -> None:
        os.makedirs(PRIVATE, exist_ok=True)
        os.makedirs("/tmp/.X11-unix", exist_ok=True)
        shutil.copytree(CODE + "/skeleton", os.environ["HOME"], dirs_exist_ok=True)
        self.own: list[subprocess.Popen[bytes]] = []
        began = time.monotonic()
        name = self._start_display(width, height)
        os.environ["DISPLAY"] = name
        self._start(
            "dbus-daemon", "--config-file=" + CODE + "/session.conf", "--nofork", "--nopidfile"
        )
        self._await(lambda: os.path.exists(PRIVATE + "/bus"), "the session bus")
        self._start("openbox", "--config-file", CODE + "/openbox.xml", "--sm-disable")
        self._start("/usr/libexec/at-spi-bus-launcher", "--launch-immediately")
        self._start_launcher(processes)
        self.display = Display(name, PRIVATE + "/screen/Xvfb_screen0")
        self.bus = Bus()
        self._await(
            lambda: self.display._property(self.display.root, "_NET_SUPPORTING_WM_CHECK"),
            "the window manager",
        )
        receive(self._launcher_out)
        self.seconds = time.monotonic() - began
        self.ended = 0
        threading.Thread(target=self._watch, args=(requests, memory_mb << 20), daemon=True).start()

    def _start(self, *argv: str, keep: tuple[int, ...] = ()) -> None:
        quiet = subprocess.DEVNULL
        self.own.append(
            subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=keep)
        )

    def _await(self, ready: Callable[[], object], what: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > end:
                raise RefusedError(f"{what} did not start within {START_SECONDS:g} s")
            time.sleep(0.005)

    def _start_display(self, width: int, height: int) -> str:
        os.makedirs(PRIVATE + "/screen")
        out, into = os.pipe()
        self._start(
            "Xvfb", "-displayfd", str(into), "-screen", "0", f"{width}x{height}x24",
            "-fbdir", PRIVATE + "/screen", "-nolisten", "tcp", "-noreset", "-s", "0",
            keep=(into,),
        )  # fmt: skip
        os.close(into)
        with open(out) as file:
            number = file.readline().strip()
        if not number:
            raise RefusedError("Xvfb did not start")
        return ":" + number

    def _start_launcher(self, processes: int) -> None:
        launcher = subprocess.Popen(
            [
                "bwrap", "--dev-bind", "/", "/", "--ro-bind", PRIVATE, PRIVATE,
                "--ro-bind", "/tmp/.X11-unix", "/tmp/.X11-unix", "--tmpfs", PRIVATE + "/screen",
                "--proc", "/proc", "--dev", "/dev", "--bind", "/dev/shm", "/dev/shm",
                "--unshare-user", "--unshare-pid", "--as-pid-1", "--die-with-parent",
                "--", sys.executable, "-I", "-c", ENTER.format("launcher"),
                str(processes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )  # fmt: skip
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        self._launcher_in, self._launcher_out = launcher.stdin.fileno(), launcher.stdout.fileno()
        self.own.append(launcher)

    def _watch(self, requests: int, memory: int) -> None:
        """End the largest program of the policy when all together hold too much memory."""
        keep = {1, *(one.pid for one in self.own)}
        orphaned = select.poll()
        orphaned.register(requests, select.POLLRDHUP)
        while True:
            time.sleep(WATCH_SECONDS)
            if orphaned.poll(0):
                # The worker is gone. Whatever is being done, process 1 takes all others with it.
                os._exit(0)
            held = {int(pid): anonymous(pid) for pid in os.listdir("/proc") if pid.isdigit()}
            if sum(held.values()) <= memory:
                continue
            inner = self._inner()
            victims = [pid for pid in held if pid not in keep and pid in inner]
            if victims:
                try:
                    os.kill(max(victims, key=held.__getitem__), 9)
                    self.ended += 1
                except ProcessLookupError:
                    continue

    def _inner(self) -> set[int]:
        """Processes of the applications' namespace, its process 1 left out."""
        found = set()
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    with open(f"/proc/{pid}/status") as file:
                        line = next(one for one in file if one.startswith("NSpid:"))
                except (OSError, StopIteration):
                    continue
                if len(numbers := line.split()[1:]) > 1 and numbers[-1] != "1":
                    found.add(int(pid))
        return found

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks for."""
        for process in self.own:
            if process.poll() is not None:
                raise RefusedError(
                    f"{process.args!r} of the desktop ended with {process.returncode}"
                )
        found: dict[str, Any] = getattr(self, "do_" + request.pop("op"))(**request)
        return found

    def do_ping(self) -> dict[str, Any]:
        """How the desktop is."""
        held = [anonymous(pid) for pid in os.listdir("/proc") if pid.isdigit()]
        return {"start_seconds": self.seconds, "memory": sum(held), "ended": self.ended}

    def do_play(self, events: list[list[Any]]) -> dict[str, Any]:
        """Input events."""
        for kind, *arguments in events:
            if kind == "key" and not self.display.knows(arguments[0]):
                return {"unknown_key": arguments[0]}
        self.display.play(events)
        return {}

    def do_settle(self, quiet: float, limit: float) -> dict[str, Any]:
        """Wait until the desktop is quiet."""
        return {"settled": settle(self.display, quiet, limit)}

    def do_observe(
        self,
        windows: bool,
        tree: bool,
        screenshot: bool,
        quiet: float,
        limit: float,
        max_nodes: int,
    ) -> dict[str, Any]:
        """What is to be seen, once it has settled and reads the same twice."""
        end = time.monotonic() + limit
        settled = settle(self.display, quiet, limit)
        while True:
            found: dict[str, Any] = {"windows": self.display.windows() if windows else []}
            if tree:
                found["nodes"], found["whole"] = read(self.bus, max_nodes)
            if screenshot:
                found["payload"] = self.display.png()
            # The reading itself can wake applications: what is told must hold still meanwhile.
            last, settled = settled, settle(self.display, quiet / 2, end - time.monotonic())
            if not tree or not settled or self._same(found, windows, max_nodes):
                return {**found, "settled": last and settled}

    def _same(self, found: dict[str, Any], windows: bool, max_nodes: int) -> bool:
        nodes, _ = read(self.bus, max_nodes)
        return nodes == found["nodes"] and (
            not windows or self.display.windows() == found["windows"]
        )

    def do_windows(self) -> dict[str, Any]:
        """The managed windows."""
        return {"windows": self.display.windows()}

    def do_tree(self, max_nodes: int) -> dict[str, Any]:
        """The accessibility tree as it is now."""
        nodes, whole = read(self.bus, max_nodes)
        return {"nodes": nodes, "whole": whole}

    def do_screenshot(self) -> dict[str, Any]:
        """The picture as it is now."""
        return {"payload": self.display.png()}

    def do_window(self, number: int, action: str) -> dict[str, Any]:
        """Activate or close a window."""
        if action == "close":
            self.display.close(number)
        else:
            self.display.activate(number)
        return {}

    def do_launch(self, argv: list[str] | str, cwd: str) -> dict[str, Any]:
        """Start a program of the policy's or the task's."""
        return self._ask_launcher({"op": "launch", "argv": argv, "cwd": cwd})

    def do_run(self, argv: list[str] | str, cwd: str, timeout: float) -> dict[str, Any]:
        """Run a program to its end."""
        return self._ask_launcher({"op": "run", "argv": argv, "cwd": cwd, "timeout": timeout})

    def _ask_launcher(self, request: dict[str, Any]) -> dict[str, Any]:
        send(self._launcher_in, request)
        return receive(self._launcher_out)

    def do_read(self, path: str, limit: int) -> dict[str, Any]:
        """A regular file of the desktop, or why there is none to read."""
        # Not blocking: the policy may have put a pipe there.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(file, "rb") as opened:
            if not os.path.isfile(f"/proc/self/fd/{file}"):
                return {"missing": "it is not a regular file"}
            return {"payload": opened.read(limit)}

    def do_write(self, path: str, data: str) -> dict[str, Any]:
        """Write a file, its folders too."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
        return {}


def anonymous(pid: str) -> int:
    """Bytes of anonymous memory of a process."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
    except OSError:
        return 0
    return 0


def _enter(user: str) -> None:
    """Mount /proc of this namespace, then give up every right.

    Not by bubblewrap: it covers parts of /proc, after which the kernel refuses one to a namespace
    below. `user` is "root" where this is the machine's root, who becomes nobody here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID_NODEV_NOEXEC, None):
        raise OSError(ctypes.get_errno(), "mount /proc")
    if user == "root":
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # The kernel forgets it with the user.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    for folder in (os.environ["HOME"], os.environ["XDG_RUNTIME_DIR"]):
        os.mkdir(folder, 0o700)
    os.chdir(os.environ["HOME"])


def main() -> None:
    """Serve requests of standard input until it ends."""
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    _enter(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        helper = Helper(requests, *map(int, sys.argv[2:6]))
    except Exception as error:
        send(answers, {"failed": f"{type(error).__name__}: {error}"})
        return
    send(answers, {"ready": True, "seconds": helper.seconds})
    while True:
        try:
            request = receive(requests)
        except EOFError:
            os._exit(0)
        try:
            found = helper.answer(request)
        except FileNotFoundError as error:
            found = {"missing": str(error.strerror)}
        except OSError as error:
            found = {"missing": f"{error.strerror}"}
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
        send(answers, found)

"""The first process of a family's namespaces: it starts, watches and ends everything in them.

A family is a session with all that were forked from it, or one stateless program. Programs cannot
signal this process (it is the first of its process namespace) nor trace it (it holds rights that
they lack). It ends when the host has closed the control sockets of all members, and the kernel
then ends every process of the namespace.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import select
import signal
import time
from typing import Any, NoReturn

from . import kernel, members, wire
from .copying import copy_tree
from .interpreter import run_program
from .limits import MIB, Allowance, cpu_seconds, memory_bytes
from .members import Member, Watch

_BUSY, _IDLE = 0.05, 1.0
_PATIENCE = 5.0
_OWN_SPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNET


def enter(control: wire.Socket, total: int) -> NoReturn:
    """Be the first process of a new process namespace, for the session or program of `control`.

    `total` bounds the processes of all families together.
    """
    # Signals that nobody handles cannot end the first process of a namespace.
    wake, _ = members.heed_children()
    enter_namespaces()
    last_pid = -1
    with contextlib.suppress(OSError):
        last_pid = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY | os.O_CLOEXEC)
    kernel.protect_settings()
    Family(control, wake, last_pid, total).serve()
    os._exit(0)


def enter_namespaces() -> None:
    """Leave all namespaces but the user's for new ones, with a /proc and a loopback."""
    kernel.unshare(_OWN_SPACES)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount_proc()
    kernel.raise_loopback()


class Family:
    """The loop of a family's first process; `last_pid` is the open number of the last process."""

    def __init__(self, control: wire.Socket, wake: int, last_pid: int, total: int) -> None:
        self._wake, self._last_pid, self._total = wake, last_pid, total
        self._members: dict[int, Member] = {}
        self._compared = time.monotonic()
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)
        self._admit(control)

    def serve(self) -> None:
        """Until the last member has gone."""
        while self._members:
            self.turn()

    def turn(self) -> None:
        """Wait for what happens next, or until it is time to compare, and see to it."""
        watching = living = False
        for member in self._members.values():
            watching = watching or member.watch is not None
            living = living or member.interpreter > 0
        pause = _BUSY if watching else _IDLE if living else None
        events = self._poll.poll(pause and 1000 * pause)
        for descriptor, _ in events:
            if descriptor == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            elif descriptor in self._members:
                self._answer(self._members[descriptor])
        self._reap()
        now = time.monotonic()
        if watching or now - self._compared >= _IDLE:
            self._compared = now
            self._compare(now)

    def _admit(self, control: wire.Socket) -> Member:
        control.setblocking(True)
        member = Member(control, Allowance(1, 1, 1, 1, 16, 1))
        self._members[control.fileno()] = member
        self._poll.register(control, select.POLLIN)
        return member

    def _answer(self, member: Member) -> None:
        """Do what one frame asks for."""
        try:
            frame = wire.receive(member.control)
        except (wire.Broken, OSError):
            self._dismiss(member)
            return
        header: dict[str, Any] = {}
        blobs: list[bytes] = []
        try:
            done = getattr(self, "_do_" + frame.header["do"])(member, frame)
            header, blobs = done if isinstance(done, tuple) else (done or {}, [])
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or errno.EINVAL
            header = {"errno": number, "error": str(error)}
        finally:
            for descriptor in frame.descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        if not frame.header.get("quiet"):
            self._tell(member, {"reply": frame.header["do"], **header}, blobs)
        elif "error" in header:
            self._tell(member, {"ended": 0, **header})

    def _tell(
        self, member: Member, header: dict[str, Any], blobs: list[bytes] | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            wire.send(member.control, header, blobs)

    def _do_program(self, member: Member, frame: wire.Frame) -> None:
        """A program of its own: `argv`, or the Python in the last blob."""
        allowed = member.limits = Allowance.of(frame.header)
        names = frame.header["files"]
        argv, code = frame.header.get("argv"), frame.blobs[-1]

        def enter() -> None:
            members.settle_in(allowed.disk, self._total)
            folder = os.open(members.WORK, os.O_RDONLY | os.O_DIRECTORY)
            members.put_files(folder, names, frame.blobs[: len(names)])
            os.close(folder)

        def prepare() -> None:
            if argv:
                members.prepare_command(allowed, 1)
            else:
                members.prepare_program(allowed)

        def run() -> NoReturn:
            if argv:
                members.run_command(argv)
            run_program(code)
            os._exit(0)

        with contextlib.suppress(OSError):  # so that every program has the same process id
            os.pwrite(self._last_pid, b"1", 0)
        pid = members.spawn(enter, run, frame.descriptors, prepare=prepare)
        member.programs.add(pid)
        member.watch = Watch(allowed, time.monotonic(), 0.0, program=True)

    def _do_session(self, member: Member, frame: wire.Frame) -> dict[str, Any]:
        """A session's first interpreter, or (`again`) the one after it."""
        allowed = member.limits = Allowance.of(frame.header)
        count, again = len(self._members), member.folder >= 0

        def enter() -> None:
            if again:
                members.join(member.spaces)
            else:
                members.settle_in(allowed.disk, self._total)

        def prepare() -> None:
            members.prepare_session(allowed, count)

        pid = members.spawn(enter, members.serve_session, frame.descriptors, prepare=prepare)
        member.interpreter = pid
        if not again:
            self._remember(member, pid)
            members.put_files(member.folder, frame.header["files"], frame.blobs)
        return {"pid": pid}

    def _remember(self, member: Member, pid: int) -> None:
        """Hold what a process's namespaces are known and entered by."""
        member.spaces = (
            os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC),
            os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC),
        )
        member.folder = os.open(
            f"/proc/{pid}/root{members.WORK}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        member.mount_id = os.fstat(member.spaces[1]).st_ino

    def _do_adopt(self, member: Member, frame: wire.Frame) -> None:
        """Make a member for the fork that `member` is about to make."""
        if len(self._members) >= members.SPARE_PROCESSES - 8:
            raise OSError(errno.EAGAIN, "too many live forks of one session")
        twin = self._admit(wire.Socket(fileno=os.dup(frame.descriptors[0])))
        twin.limits = member.limits
        self._raise_process_limits()

    def _raise_process_limits(self) -> None:
        """A family's processes are counted together: each member more makes room for itself."""
        for member in self._members.values():
            if member.interpreter <= 0:
                continue
            with contextlib.suppress(OSError):
                _, ceiling = resource.prlimit(member.interpreter, resource.RLIMIT_NPROC)
                soft = min(member.limits.processes + len(self._members) + 1, ceiling)
                resource.prlimit(member.interpreter, resource.RLIMIT_NPROC, (soft, ceiling))

    def _do_furnish(self, member: Member, frame: wire.Frame) -> None:
        """Give a forked interpreter a home of its own with a copy of what is in its parent's."""
        pid = int(frame.header["pid"])
        mount = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        known = {one.mount_id for one in self._members.values()}
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(mount).st_ino in known | {os.fstat(own).st_ino}:
                raise OSError(errno.EPERM, "the fork has no mount namespace of its own")
            source = os.open(f"/proc/{pid}/root{members.HOME}", os.O_RDONLY | os.O_DIRECTORY)
            kernel.setns(mount, kernel.CLONE_NEWNS)
            try:
                kernel.unmount(members.HOME)
                members.furnish(member.limits.disk, bare=True)
                target = os.open(members.HOME, os.O_RDONLY | os.O_DIRECTORY)
                copy_tree(source, target)
                os.close(target)
            finally:
                kernel.setns(own, kernel.CLONE_NEWNS)
                os.close(source)
            self._remember(member, pid)
            member.interpreter = pid
        finally:
            os.close(own)
            os.close(mount)

    def _do_command(self, member: Member, frame: wire.Frame) -> dict[str, Any]:
        """A program in the session's folder, in no need of its interpreter."""
        allowed = Allowance.of(frame.header)
        argv, count = frame.header["argv"], len(self._members)
        pid = members.spawn(
            lambda: members.join(member.spaces),
            lambda: members.run_command(argv),
            frame.descriptors,
            prepare=lambda: members.prepare_command(allowed, count),
        )
        member.programs.add(pid)
        member.watch = Watch(allowed, time.monotonic(), self._cpu(member), program=True)
        return {"pid": pid}

    def _do_watch(self, member: Member, frame: wire.Frame) -> None:
        member.watch = Watch(Allowance.of(frame.header), time.monotonic(), self._cpu(member))

    def _do_unwatch(self, member: Member, frame: wire.Frame) -> None:
        member.watch, member.idle_cpu, member.ran = None, None, 0.0

    def _do_ran(self, member: Member, frame: wire.Frame) -> None:
        member.ran += frame.header["seconds"]

    def _do_read(self, member: Member, frame: wire.Frame) -> tuple[dict[str, Any], list[bytes]]:
        return {}, [members.get_file(member.folder, frame.header["path"])]

    def _do_write(self, member: Member, frame: wire.Frame) -> None:
        members.put_file(member.folder, frame.header["path"], frame.blobs[0])

    def _do_kill(self, member: Member, frame: wire.Frame) -> None:
        self._kill(member)

    def _do_kill_program(self, member: Member, frame: wire.Frame) -> None:
        self._kill(member, but=member.interpreter)

    def _pids(self, member: Member) -> list[int]:
        """Processes of `member`: those in its mount namespace. Strays are ended on the way."""
        with os.scandir("/proc") as entries:
            names = [entry.name for entry in entries if entry.name.isdigit()]
        pids = [int(name) for name in names if name != "1"]
        if len(self._members) == 1:
            return pids
        known = {one.mount_id for one in self._members.values()}
        forking = 0 in known
        mine = []
        for pid in pids:
            with contextlib.suppress(OSError):
                identity = os.stat(f"/proc/{pid}/ns/mnt").st_ino
                if identity == member.mount_id or pid == member.interpreter:
                    mine.append(pid)
                elif identity not in known and not forking:
                    _signal(pid)
        return mine

    def _cpu(self, member: Member) -> float:
        return cpu_seconds(self._pids(member))

    def _kill(self, member: Member, *, but: int = 0) -> bool:
        """End every process of `member`, or all but one, and say whether none is left."""
        alone = len(self._members) == 1 and not but
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if alone:
                _signal(-1)
                done = _has_no_children()
            else:
                pids = [pid for pid in self._pids(member) if pid != but and not _is_dead(pid)]
                # Stopped first: what stands still does not multiply while the others are ended.
                for number in (signal.SIGSTOP, signal.SIGKILL):
                    for pid in pids:
                        _signal(pid, number)
                done = not pids
            self._reap()
            if done:
                return True
            time.sleep(0.0002)
        return False

    def _dismiss(self, member: Member) -> None:
        """Its host side has closed."""
        self._poll.unregister(member.control)
        if len(self._members) > 1:
            self._kill(member)
        del self._members[member.control.fileno()]
        member.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for member in list(self._members.values()):
                if pid == member.interpreter or pid in member.programs:
                    self._ended(member, pid, status)
                    break
            for member in self._members.values():
                if member.watch and len(self._members) == 1:
                    member.watch.cpu_of_dead += used.ru_utime + used.ru_stime

    def _ended(self, member: Member, pid: int, status: int) -> None:
        """Tell the host; of a stateless program with nothing left of it."""
        clean, member.watch, member.idle_cpu, member.ran = False, None, None, 0.0
        if pid in member.programs:
            member.programs.discard(pid)
            if not member.interpreter:
                clean = self._kill(member) and _network_is_unused()
        else:
            member.interpreter = -1
        code = os.waitstatus_to_exitcode(status)
        self._tell(member, {"ended": pid, "code": code, "why": member.why, "clean": clean})
        member.why = ""

    def _spins(self, member: Member, cpu: float) -> bool:
        """Whether threads or programs in the background used more than a run may."""
        if member.idle_cpu is None:
            member.idle_cpu = cpu
        return cpu - member.idle_cpu > member.limits.cpu + 4 * member.ran

    def _compare(self, now: float) -> None:
        """End what passes a limit; what runs between the calls is held to the memory limit."""
        for member in list(self._members.values()):
            if member.why or not (member.interpreter > 0 or member.programs):
                continue
            pids = self._pids(member)
            watch, limits = member.watch, member.limits
            if watch:
                limits = watch.limits
                used = cpu_seconds(pids) - watch.cpu_before + watch.cpu_of_dead
                if used > limits.cpu:
                    member.why = "cpu"
                elif now - watch.started > limits.wall:
                    member.why = "wall"
            elif self._spins(member, cpu_seconds(pids)):
                member.why = "cpu"
            if (
                not member.why
                and memory_bytes(pids, enough=limits.memory * MIB) > limits.memory * MIB
            ):
                member.why = "memory"
            if member.why:
                self._kill(member, but=member.interpreter if watch and watch.program else 0)


def _network_is_unused() -> bool:
    """Whether no connection is left that would hold a port: some outlive their processes."""
    said = b""
    for name in ("sockstat", "sockstat6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", "rb") as file:
            said += file.read()
    four = re.search(rb"^TCP: inuse 0 orphan \d+ tw 0 ", said, re.MULTILINE)
    return four is not None and not re.search(rb"^TCP6: inuse [1-9]", said, re.MULTILINE)


def _has_no_children() -> bool:
    """Then no process but this one is left in the namespace, whose orphans are its children."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _signal(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_dead(pid: int) -> bool:
    """It has ended and waits for its parent; or it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True

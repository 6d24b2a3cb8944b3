"""A Python interpreter that runs what it is given: one program, or a session run by run."""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import fcntl
import io
import linecache
import os
import select
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import NamedTuple

from . import kernel, wire

REQUEST = struct.Struct("<BII")
"""What to do, its number, and the bytes that follow."""
REPLY = struct.Struct("<IBi")
"""The number of the request, how it ended, and a number that goes with it."""
_HEAD = REQUEST.size
RUN, FORK, SETTLE = 1, 2, 3
DONE, RAISED, OUT_OF_MEMORY, FAILED = 0, 1, 2, 3

OUT_OF_MEMORY_EXIT = 117
"""Exit code of a program whose MemoryError nothing caught (its own use of it means the same)."""
LOST_CHANNEL_EXIT = 118

_exit, _getpid, _read, _write = os._exit, os.getpid, os.read, os.write


def run_program(code: bytes) -> None:
    """Run `code` as `__main__` and end this process as Python would."""
    main = _new_main()
    status = _guarded(lambda: _execute(code, "main.py", main.__dict__, show=False))
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    _flush()
    _exit(status)


def open_streams() -> None:
    """Text streams over descriptors 0 to 2, in UTF-8 whatever comes."""
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape"
    )
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=number == 2)
        setattr(sys, name, stream)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))


def _guarded(run: Callable[[], None]) -> int:
    """The exit code after `run`; an exception is printed."""
    try:
        run()
    except SystemExit as ending:
        return _code_of(ending)
    except MemoryError as error:
        _show(error)
        return OUT_OF_MEMORY_EXIT
    except BaseException as error:
        _show(error)
        return 1
    return 0


def _code_of(ending: SystemExit) -> int:
    if ending.code is None:
        return 0
    if isinstance(ending.code, int):
        return ending.code & 0xFF
    with contextlib.suppress(BaseException):
        print(ending.code, file=sys.stderr)
    return 1


def _new_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    sys.argv = ["main.py"]
    return main


def _execute(source: bytes, name: str, names: dict[str, object], *, show: bool) -> None:
    """Run `source`; with `show` an expression at its end is printed unless it is None."""
    text = source.decode("utf-8", "surrogatepass")
    lines = text.splitlines(keepends=True)
    linecache.cache[name] = (len(text), None, lines, name)
    tree = ast.parse(text, name)
    last = tree.body[-1] if show and tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    exec(compile(tree, name, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        if value is not None:
            names["_"] = value
            print(repr(value))


def _show(error: BaseException) -> None:
    """The traceback of `error` without our own frames."""
    with contextlib.suppress(BaseException):
        _flush()
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_HERE):
            frame = frame.tb_next
        shown = traceback.TracebackException(type(error), error, frame)
        _trim(shown)
        sys.stderr.write("".join(shown.format()))
    _flush()


def _trim(shown: traceback.TracebackException) -> None:
    """Leave out our own frames below a chained exception too."""
    for one in (shown.__cause__, shown.__context__):
        if one is not None:
            _trim(one)
    kept = [line for line in shown.stack if not line.filename.startswith(_HERE)]
    shown.stack = traceback.StackSummary.from_list(kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


_HERE = os.path.dirname(__file__) + os.sep


class _Open(NamedTuple):
    """An open file of the home: what it takes to open it again elsewhere."""

    descriptor: int
    path: str
    flags: int
    offset: int


class LiveInterpreter:
    """Runs code over a channel and keeps its variables; forks itself when told to.

    It uses as little as it can of what the code may have changed, but all of it lies in the code's
    reach: its replies are the word of the policy's own process.
    """

    def __init__(self, channel: wire.Socket, *, home: str) -> None:
        self._channel = channel
        self._home = home
        self._names = _new_main().__dict__
        self._runs = 0
        self._open: list[_Open] = []
        self._cwd = ""

    def serve(self) -> None:
        """Answer requests until the channel closes; never returns."""
        try:
            while True:
                self.answer()
        except (OSError, EOFError):
            _exit(LOST_CHANNEL_EXIT)

    def answer(self) -> None:
        """Do what one request asks for."""
        head, descriptors = self._receive(_HEAD)
        what, number, size = REQUEST.unpack(head)
        body = self._receive(size)[0] if size else b""
        if what == RUN:
            status, value = self._run(body)
        elif what == FORK:
            status, value = self._fork(descriptors)
        else:
            status, value = self._settle()
        self._channel.sendall(REPLY.pack(number, status, value))

    def _receive(self, size: int) -> tuple[bytes, list[int]]:
        data, descriptors = b"", []
        while len(data) < size:
            part, passed = wire.take(self._channel, size - len(data))
            descriptors += passed
            if not part:
                raise EOFError
            data += part
        return data, descriptors

    def _run(self, code: bytes) -> tuple[int, int]:
        self._runs += 1
        # A module that was written since the last run must be found, however short ago.
        sys.path_importer_cache.pop(sys.path[0] if sys.path else "", None)
        me, status = _getpid(), DONE
        try:
            _execute(code, f"<run {self._runs}>", self._names, show=True)
        except SystemExit as ending:
            self._leave(ending)
        except MemoryError as error:
            status = OUT_OF_MEMORY
            _show(error)
        except BaseException as error:
            status = RAISED
            _show(error)
        if _getpid() != me:  # the code forked, and this is its child, which ran to its end
            self._leave(SystemExit(0))
        _flush()
        return status, 0

    def _leave(self, ending: SystemExit) -> None:
        code = _code_of(ending)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        _flush()
        _exit(code)

    def _fork(self, descriptors: list[int]) -> tuple[int, int]:
        """Leave a copy of this process, which is nobody's child, at `descriptors`."""
        _flush()
        if len(descriptors) != 3:  # it has too many files open to take them
            return FAILED, 0
        told, tell = os.pipe()
        try:
            middle = os.fork()
        except OSError:
            return FAILED, 0
        if middle == 0:
            try:
                copy = os.fork()
            except OSError:
                _exit(1)
            if copy:
                _write(tell, struct.pack("<i", copy))
                _exit(0)
            try:
                self._become(descriptors)
                os.close(told)
                os.close(tell)
            except BaseException:
                _exit(1)
            # The caller returns into `serve`, of the copy, whose first word is the reply below.
            return DONE, _getpid()
        os.close(tell)
        os.waitpid(middle, 0)
        ready, _, _ = select.select([told], [], [], 5.0)
        answer = _read(told, 4) if ready else b""
        os.close(told)
        for descriptor in descriptors:
            os.close(descriptor)
        return (DONE, struct.unpack("<i", answer)[0]) if len(answer) == 4 else (FAILED, 0)

    def _become(self, descriptors: list[int]) -> None:
        channel, out, err = descriptors
        os.dup2(channel, self._channel.fileno())
        os.dup2(out, 1)
        os.dup2(err, 2)
        for descriptor in descriptors:
            os.close(descriptor)
        self._cwd = os.getcwd()
        self._open = self._opened()
        kernel.unshare(kernel.CLONE_NEWNS)

    def _opened(self) -> list[_Open]:
        found = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                number = int(name)
                path = os.readlink(f"/proc/self/fd/{name}")
                if not path.startswith(self._home):
                    continue
                flags = fcntl.fcntl(number, fcntl.F_GETFL)
                offset = 0 if flags & os.O_PATH else os.lseek(number, 0, os.SEEK_CUR)
                found.append(_Open(number, path, flags, offset))
        return found

    def _settle(self) -> tuple[int, int]:
        """Turn the working folder and every open file of the home to the copy's own files."""
        os.chdir(self._cwd)
        for one in self._open:
            inheritable = os.get_inheritable(one.descriptor)
            fresh = self._opened_again(one)
            os.dup2(fresh, one.descriptor, inheritable)
            os.close(fresh)
        self._open = []
        return DONE, 0

    def _opened_again(self, one: _Open) -> int:
        """The same file in this home; of one that was deleted, a copy without a name."""
        with contextlib.suppress(OSError):
            fresh = os.open(one.path, one.flags & ~(os.O_EXCL | os.O_CREAT | os.O_TRUNC))
            if not one.flags & os.O_PATH:
                os.lseek(fresh, one.offset, os.SEEK_SET)
            return fresh
        fresh = os.open(self._home, os.O_RDWR | os.O_TMPFILE, 0o600)
        with contextlib.suppress(OSError):
            size, at = os.fstat(one.descriptor).st_size, 0
            while at < size:
                at += os.pwrite(fresh, os.pread(one.descriptor, 1 << 20, at), at)
            os.lseek(fresh, one.offset, os.SEEK_SET)
        return fresh

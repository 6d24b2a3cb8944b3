"""The live interpreter of a session in a container: runs pieces of code that share their variables.

`docker_guest` hands the text of this module to `python3 -c` with two pipes: one brings code, each
piece behind its length; into the other goes one byte for each piece, `1` where it ran to its end.
"""

from __future__ import annotations

import ast
import linecache
import os
import struct
import sys
import traceback
from types import CodeType
from typing import Any

WORK = "/tmp/work"


def serve(code_fd: int, done_fd: int) -> None:
    """Run every piece in one namespace until the pipe closes."""
    # Only now: a file of the policy must not shadow what this program imports itself.
    os.chdir(WORK)
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    me, number = os.getpid(), 0
    with open(code_fd, "rb", buffering=0) as pipe:
        while len(size := exactly(pipe, 4)) == 4:
            number += 1
            source = exactly(pipe, struct.unpack("!I", size)[0]).decode("utf-8", "replace")
            fine = run(source, f"<run {number}>", namespace)
            flush()
            if os.getpid() != me:
                os._exit(0 if fine else 1)
            os.write(done_fd, b"1" if fine else b"0")


def run(source: str, name: str, namespace: dict[str, Any]) -> bool:
    """Run `source`, show the value of an expression at its end; False after an exception."""
    lines = source.splitlines(keepends=True)
    linecache.cache[name] = (len(source), None, lines, name)
    try:
        for code, last in compiled(source, name):
            if last:
                sys.displayhook(eval(code, namespace))
            else:
                exec(code, namespace)
    except SystemExit:
        raise
    except BaseException as error:
        shown = error.__traceback__
        while shown is not None and shown.tb_frame.f_code.co_filename != name:
            shown = shown.tb_next
        traceback.print_exception(type(error), error, shown)
        return False
    return True


def compiled(source: str, name: str) -> list[tuple[CodeType, bool]]:
    """The statements, and apart from them the expression at the end, which is shown."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    pieces = [(compile(tree, name, "exec"), False)] if tree.body else []
    if isinstance(last, ast.Expr):
        pieces.append((compile(ast.Expression(last.value), name, "eval"), True))
    return pieces


def flush() -> None:
    """Send what is buffered, where the code has left the streams open."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue


def exactly(pipe: Any, size: int) -> bytes:
    """The next `size` bytes, or fewer at the end of the pipe."""
    data = b""
    while len(data) < size:
        piece = pipe.read(size - len(data))
        if not piece:
            break
        data += piece
    return data


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

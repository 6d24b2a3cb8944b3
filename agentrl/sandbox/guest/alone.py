"""A Python process without a container: limits on itself, then one program or a session."""

from __future__ import annotations

import json
import os
import socket
import sys

from .interpreter import LiveInterpreter, open_streams, run_program
from .limits import Allowance, restrict


def main() -> None:
    """Arguments: the limits as JSON, then a channel's descriptor, a program's file or `--` argv."""
    allowed = Allowance.of({"limits": json.loads(sys.argv[1])})
    what, *argv = sys.argv[2:]
    # The processes of one user id are counted over the whole machine: no bound of ours fits.
    restrict(allowed, processes=None, ceiling=None, cpu=not what.isdigit())
    if what == "--":
        try:
            os.execvp(argv[0], argv)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode("utf-8", "surrogateescape"))
            os._exit(127)
    open_streams()
    sys.path.insert(0, os.getcwd())
    if what.isdigit():
        LiveInterpreter(socket.socket(fileno=int(what)), home=os.getcwd()).serve()
    with open(what, "rb") as file:
        code = file.read()
    os.unlink(what)
    run_program(code)

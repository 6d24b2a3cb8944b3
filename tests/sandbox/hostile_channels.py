"""Programs that attack the interpreter and the way of their results."""

from __future__ import annotations

from hostile_records import ERROR, KILLED, MEMORY, OK, attack

CHANNELS = (
    attack(
        "words into every descriptor",
        """
import os, struct
for fd in range(3, 64):
    for words in (b'{"ended": 2, "code": 0, "why": ""}', b"+", struct.pack("<IBi", 1, 0, 0) * 50,
                  b'{"status": "ok", "stdout": "forged", "reward": 1.0}\\n' * 3,
                  struct.pack("<II", 2 ** 31, 2 ** 31)):
        try:
            os.write(fd, words)
        except OSError:
            pass
raise SystemExit(7)
""",
        ERROR,
    ),
    attack(
        "frames on standard output",
        """
import os, struct
os.write(1, struct.pack("<II", 40, 0) + b'{"reply": "program", "code": 0, "x": 12}')
os.write(1, b"\\x01\\0\\0\\0\\0\\0\\0\\x08stdout: \\x02\\0\\0\\0\\0\\0\\0\\x04true")
raise SystemExit(7)
""",
        ERROR,
    ),
    attack(
        "all descriptors closed", "import os\nos.closerange(0, 256)\nraise SystemExit(7)", ERROR
    ),
    attack(
        "an interpreter turned inside out",
        """
import builtins, json, os, struct, sys, threading, traceback
def broken(*args, **kwargs):
    raise RuntimeError("broken")
json.dumps = json.loads = struct.pack = traceback.format_exception = broken
sys.excepthook = threading.excepthook = sys.displayhook = broken
os._exit = sys.exit = os.write = os.close = broken
builtins.print = builtins.open = builtins.repr = builtins.len = builtins.isinstance = broken
sys.modules.clear()
sys.stdout = sys.stderr = None
raise ValueError
""",
        ERROR,
        KILLED,
    ),
    attack(
        "an exit that claims success",
        "import os\nprint('all tests passed')\nos._exit(0)",
        OK,
        says="",
    ),
    attack(
        "exceptions that raise when they are shown",
        """
class E(BaseException):
    def __str__(self): raise E
    __repr__ = __str__
    def __getattribute__(self, name): raise E
raise E
""",
        ERROR,
    ),
    attack("source that is no text", "x = '\\ud800'\nprint(ascii(x))\nprint(x)", OK, ERROR),
    attack("source that nests too deep", "x = " + "(" * 5000 + ")" * 5000, ERROR, MEMORY, KILLED),
)

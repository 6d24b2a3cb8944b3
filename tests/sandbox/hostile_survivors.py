"""Programs that will not end, or end badly."""

from __future__ import annotations

from hostile_records import CPU, ERROR, KILLED, OK, WALL, attack

SURVIVORS = (
    attack(
        "sleep past the deadline with output pending",
        "import time\nprint('begun', flush=True)\nprint('more', end='')\ntime.sleep(1000)",
        WALL,
        says="begun",
    ),
    attack(
        "sleep that ignores every signal",
        """
import signal, time
for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
while True:
    time.sleep(1000)
""",
        WALL,
    ),
    attack(
        "a daemon that leaves its session",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        while True:
            time.sleep(1)
    os._exit(0)
print("left")
""",
        OK,
        says="left",
    ),
    attack(
        "a daemon that holds the output open",
        "import os, time\nif os.fork() == 0:\n    time.sleep(1000)\nprint('left')",
        OK,
        says="left",
    ),
    attack(
        "zombies",
        """
import os
for _ in range(4):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(3)
        os._exit(3)
print("left")
""",
        OK,
        says="left",
    ),
    attack(
        "threads that outlive the program",
        """
import threading, time
def stay():
    while True:
        time.sleep(0.1)
threading.Thread(target=stay).start()
print("main is done", flush=True)
""",
        WALL,
        says="main is done",
    ),
    attack(
        "an exit handler that never ends",
        "import atexit, time\natexit.register(time.sleep, 1000)\nprint('bye', flush=True)",
        WALL,
        says="bye",
    ),
    attack(
        "another program in its place",
        "import os\nos.execv('/bin/sh', ['sh', '-c', 'while :; do sleep 100; done'])",
        WALL,
        CPU,
    ),
    attack(
        "a pause under a stopped parent",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        WALL,
    ),
    attack("a segmentation fault", "import ctypes\nctypes.string_at(0)", KILLED, ERROR),
    attack("an abort", "import os\nos.abort()", KILLED, ERROR),
    attack("killing itself", "import os\nos.kill(os.getpid(), 9)", KILLED, ERROR),
    attack(
        "core dumps",
        """
import os, resource
try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("ESCAPED")
except (ValueError, OSError):
    print("no cores")
os.abort()
""",
        KILLED,
        ERROR,
    ),
)

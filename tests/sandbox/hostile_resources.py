"""Programs that use more than they were given: memory, disk, processors, processes, output."""

from __future__ import annotations

from hostile_records import CPU, ERROR, FLOOD, KILLED, MEMORY, OK, WALL, attack

RESOURCES = (
    attack(
        "fork bomb",
        """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        WALL,
        CPU,
        KILLED,
        MEMORY,
    ),
    attack(
        "fork bomb of sleepers in sessions of their own",
        """
import os, time
for _ in range(500):
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
    except OSError:
        pass
print("done")
""",
        OK,
        says="done",
    ),
    attack(
        "thread bomb",
        """
import threading, time
made = []
try:
    for _ in range(5000):
        made.append(threading.Thread(target=time.sleep, args=(100,), daemon=True))
        made[-1].start()
    print("ESCAPED")
except RuntimeError as error:
    print("no more threads")
""",
        OK,
        MEMORY,
        says="no more threads",
    ),
    attack("memory in one process", "x = bytearray(10 ** 10)", MEMORY, ERROR),
    attack(
        "memory bit by bit",
        "x = []\nwhile True:\n    x.append(bytearray(1 << 20))",
        MEMORY,
        ERROR,
        KILLED,
        CPU,
        WALL,
    ),
    attack(
        "memory bit by bit, and MemoryError is caught",
        """
x = []
while True:
    try:
        x.append(bytearray(1 << 20))
    except MemoryError:
        pass
""",
        MEMORY,
        CPU,
        WALL,
        KILLED,
    ),
    attack(
        "memory in many processes",
        """
import os, time
for _ in range(10):
    if os.fork() == 0:
        x = bytearray(b"x") * (60 << 20)
        time.sleep(60)
time.sleep(60)
""",
        MEMORY,
        KILLED,
        WALL,
    ),
    attack(
        "private mapping of memory",
        """
import mmap
m = mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(m), 4096):
    m[at] = 1
print("ESCAPED")
""",
        MEMORY,
        ERROR,
        KILLED,
        CPU,
        WALL,
    ),
    attack(
        "shared mapping of memory",
        """
import mmap
m = mmap.mmap(-1, 4 << 30)
for at in range(0, len(m), 4096):
    m[at] = 1
print("ESCAPED")
""",
        MEMORY,
        ERROR,
        KILLED,
        CPU,
        WALL,
    ),
    attack(
        "files that live in memory only",
        """
import os, time
kept = []
try:
    for number in range(40):
        kept.append(os.memfd_create(str(number)))
        for _ in range(64):
            os.write(kept[-1], bytes(1 << 20))
    time.sleep(1)
    print("ESCAPED")
except OSError:
    print("refused")
""",
        OK,
        MEMORY,
        KILLED,
        ERROR,
    ),
    attack(
        "disk filled by one file",
        """
try:
    with open("big", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
except OSError as error:
    print("full")
import os
print("ESCAPED" if os.path.getsize("big") > 64 << 20 else "small")
""",
        OK,
        KILLED,
        ERROR,
        says="",
    ),
    attack(
        "disk filled by many files",
        """
try:
    for number in range(200_000):
        open(f"f{number}", "w").close()
    print("ESCAPED")
except OSError:
    print("full")
""",
        OK,
        WALL,
        CPU,
        KILLED,
    ),
    attack(
        "disk filled outside of the working folder",
        """
import os
full = 0
for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/usr", "/etc", "/home"):
    try:
        for number in range(40):
            with open(f"{folder}/big{number}", "wb") as file:
                file.write(bytes(8 << 20))
        print("ESCAPED", folder)
    except OSError:
        full += 1
print("full", full)
""",
        OK,
        KILLED,
        MEMORY,
    ),
    attack(
        "zip bomb",
        """
import zlib
packed = zlib.compress(bytes(50 << 20), 9)
again = zlib.decompressobj()
out = [again.decompress(packed)]
while True:
    out.append(zlib.decompress(packed))
""",
        MEMORY,
        ERROR,
        KILLED,
        CPU,
        WALL,
    ),
    attack("endless output", "while True:\n    print('y' * 1000)", FLOOD, CPU, WALL, cut=True),
    attack(
        "endless output on standard error",
        "import sys\nwhile True:\n    sys.stderr.write('n' * 1000)",
        FLOOD,
        CPU,
        WALL,
        cut=True,
    ),
    attack(
        "endless output on both, from two threads",
        """
import os, threading
def write(to):
    while True:
        os.write(to, b"z" * 65536)
threading.Thread(target=write, args=(1,)).start()
write(2)
""",
        FLOOD,
        CPU,
        WALL,
        cut=True,
    ),
    attack("one huge line", "print('x' * 3_000_000)", OK, FLOOD, cut=True),
    attack(
        "bytes that are no text",
        """
import os
os.write(1, bytes(range(256)) * 8 + b"\\xff\\xfe\\xf0\\x9f" + b"\\xed\\xa0\\x80")
os.write(2, b"\\xc3")
""",
        OK,
        FLOOD,
    ),
    attack("a loop", "while True:\n    pass", CPU, WALL),
    attack(
        "loops in threads",
        """
import threading
def spin():
    while True:
        sum(range(1000))
for _ in range(6):
    threading.Thread(target=spin).start()
""",
        CPU,
        WALL,
    ),
    attack(
        "loops in processes",
        """
import os
for _ in range(4):
    if os.fork() == 0:
        while True:
            pass
while True:
    pass
""",
        CPU,
        WALL,
    ),
    attack("a huge power", "x = 10 ** 10 ** 8", CPU, WALL, MEMORY),
    attack(
        "a huge number as text",
        "import sys\nsys.set_int_max_str_digits(0)\nstr(7 ** 10_000_000)",
        CPU,
        WALL,
        MEMORY,
    ),
    attack(
        "a regular expression that blows up",
        "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
        CPU,
        WALL,
    ),
    attack(
        "an endless iterator in C",
        "import itertools, collections\ncollections.deque(itertools.repeat(0), maxlen=0)",
        CPU,
        WALL,
    ),
    attack(
        "deep recursion",
        """
import sys
sys.setrecursionlimit(10 ** 9)
def down(n):
    return down(n + 1)
down(0)
""",
        ERROR,
        KILLED,
        MEMORY,
        CPU,
    ),
    attack(
        "an exception whose text never comes",
        "class E(Exception):\n    def __str__(self):\n        while 1:\n            pass\nraise E",
        CPU,
        WALL,
    ),
)

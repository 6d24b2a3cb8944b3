"""Programs that attack their sandbox, as data: what each may end as, and what it must not do.

A program that finds itself able to do what it must not prints ESCAPED. `@NAME@` in a program is
filled in by the test (`filled`): PORT, a TCP port of the host that listens on 127.0.0.1; SOCKET,
an abstract Unix socket that listens there; CANARY, a file of the host; SECRET, what is in that
file and in the worker's environment; CHECKOUT, the folder of this repository; WORKER, the process
id of the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.sandbox import Limits, RunStatus

LIMITS = Limits(
    wall_seconds=3.0,
    cpu_seconds=2.0,
    memory_mb=128,
    processes=16,
    open_files=64,
    disk_mb=8,
    output_chars=2000,
)

OK, ERROR, WALL, CPU, MEMORY, FLOOD, KILLED = (
    RunStatus.OK,
    RunStatus.ERROR,
    RunStatus.WALL_LIMIT,
    RunStatus.CPU_LIMIT,
    RunStatus.MEMORY_LIMIT,
    RunStatus.OUTPUT_LIMIT,
    RunStatus.KILLED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """An attack; `outcomes` are the statuses that it may end with, `says` what it must print."""

    name: str
    code: str
    outcomes: tuple[RunStatus, ...]
    says: str = ""
    cut: bool = False


def filled(code: str, **values: object) -> str:
    """`code` with every `@NAME@` replaced."""
    for name, value in values.items():
        code = code.replace(f"@{name}@", str(value))
    return code


def _one(name: str, code: str, *outcomes: RunStatus, says: str = "", cut: bool = False) -> Hostile:
    return Hostile(name=name, code=code.strip("\n"), outcomes=outcomes, says=says, cut=cut)


_RESOURCES = (
    _one(
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
    _one(
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
    _one(
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
    _one("memory in one process", "x = bytearray(10 ** 10)", MEMORY, ERROR),
    _one(
        "memory bit by bit",
        "x = []\nwhile True:\n    x.append(bytearray(1 << 20))",
        MEMORY,
        ERROR,
        KILLED,
    ),
    _one(
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
    _one(
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
    _one(
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
    ),
    _one(
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
    _one(
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
    _one(
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
    _one(
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
    _one(
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
    _one(
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
    ),
    _one("endless output", "while True:\n    print('y' * 1000)", FLOOD, CPU, WALL, cut=True),
    _one(
        "endless output on standard error",
        "import sys\nwhile True:\n    sys.stderr.write('n' * 1000)",
        FLOOD,
        CPU,
        WALL,
        cut=True,
    ),
    _one(
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
    _one("one huge line", "print('x' * 3_000_000)", OK, FLOOD, cut=True),
    _one(
        "bytes that are no text",
        """
import os
os.write(1, bytes(range(256)) * 8 + b"\\xff\\xfe\\xf0\\x9f" + b"\\xed\\xa0\\x80")
os.write(2, b"\\xc3")
""",
        OK,
        FLOOD,
    ),
    _one("a loop", "while True:\n    pass", CPU, WALL),
    _one(
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
    _one(
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
    _one("a huge power", "x = 10 ** 10 ** 8", CPU, WALL, MEMORY),
    _one(
        "a huge number as text",
        "import sys\nsys.set_int_max_str_digits(0)\nstr(7 ** 10_000_000)",
        CPU,
        WALL,
        MEMORY,
    ),
    _one(
        "a regular expression that blows up",
        "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
        CPU,
        WALL,
    ),
    _one(
        "an endless iterator in C",
        "import itertools, collections\ncollections.deque(itertools.repeat(0), maxlen=0)",
        CPU,
        WALL,
    ),
    _one(
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
    _one(
        "an exception whose text never comes",
        "class E(Exception):\n    def __str__(self):\n        while 1:\n            pass\nraise E",
        CPU,
        WALL,
    ),
)

_SURVIVORS = (
    _one(
        "sleep past the deadline with output pending",
        "import time\nprint('begun', flush=True)\nprint('more', end='')\ntime.sleep(1000)",
        WALL,
        says="begun",
    ),
    _one(
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
    _one(
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
    _one(
        "a daemon that holds the output open",
        "import os, time\nif os.fork() == 0:\n    time.sleep(1000)\nprint('left')",
        OK,
        says="left",
    ),
    _one(
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
    _one(
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
    _one(
        "an exit handler that never ends",
        "import atexit, time\natexit.register(time.sleep, 1000)\nprint('bye', flush=True)",
        WALL,
        says="bye",
    ),
    _one(
        "another program in its place",
        "import os\nos.execv('/bin/sh', ['sh', '-c', 'while :; do sleep 100; done'])",
        WALL,
        CPU,
    ),
    _one(
        "a pause under a stopped parent",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        WALL,
    ),
    _one("a segmentation fault", "import ctypes\nctypes.string_at(0)", KILLED, ERROR),
    _one("an abort", "import os\nos.abort()", KILLED, ERROR),
    _one("killing itself", "import os\nos.kill(os.getpid(), 9)", KILLED, ERROR),
    _one(
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

_FILES = (
    _one(
        "password files",
        """
for path in ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/root/.ssh/id_rsa"):
    try:
        print("ESCAPED", path, open(path).read()[:20])
    except OSError:
        pass
print("looked")
""",
        OK,
        says="looked",
    ),
    _one(
        "a file of the worker's user",
        """
import os
try:
    print("ESCAPED", open("@CANARY@").read())
except OSError:
    print("not there")
""",
        OK,
        says="not there",
    ),
    _one(
        "a file of the worker's user, through /proc",
        """
import glob
for root in glob.glob("/proc/*/root") + glob.glob("/proc/*/cwd"):
    try:
        print("ESCAPED", open(root + "@CANARY@").read())
    except OSError:
        pass
print("looked")
""",
        OK,
        says="looked",
    ),
    _one(
        "the checkout",
        """
import os
print("ESCAPED" if os.path.exists("@CHECKOUT@/pyproject.toml") else "not there")
""",
        OK,
        says="not there",
    ),
    _one(
        "homes of others",
        """
import glob
found = [path for path in glob.glob("/root/.[a-z]*/*") + glob.glob("/home/*/.ssh")
         if "pyenv" not in path]
print("ESCAPED" if found else "nothing", found[:3])
""",
        OK,
        says="nothing",
    ),
    _one(
        "secrets of the environment",
        """
import glob, os
said = repr(dict(os.environ)).encode()
for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline"):
    try:
        said += open(path, "rb").read()
    except OSError:
        pass
print("ESCAPED" if b"@SECRET@" in said else "nothing")
""",
        OK,
        says="nothing",
    ),
    _one(
        "processes of the host",
        """
import os
try:
    os.kill(@WORKER@, 0)
    alive = True
except ProcessLookupError:
    alive = False
except PermissionError:
    alive = True
names = []
for entry in os.listdir("/proc"):
    if entry.isdigit():
        try:
            names.append(open(f"/proc/{entry}/cmdline").read())
        except OSError:
            pass
print("ESCAPED" if any("pytest" in name for name in names) else "nobody", len(names) < 20)
""",
        OK,
        says="nobody True",
    ),
    _one(
        "writing to the system",
        """
import os, sys
written = []
for path in ("/etc/passwd", "/usr/bin/env", sys.executable, os.__file__, "/bin/sh"):
    try:
        open(path, "ab").close()
        written.append(path)
    except OSError:
        pass
for path in ("/usr/evil", "/etc/evil", sys.prefix + "/evil", "/evil"):
    try:
        open(path, "w").close()
        written.append(path)
    except OSError:
        pass
print("ESCAPED" if written else "read only", written)
""",
        OK,
        says="read only",
    ),
    _one(
        "links out of the folder",
        """
import os
os.symlink("@CANARY@", "soft")
os.symlink("/etc", "folder")
linked = []
for target in ("@CANARY@", "/etc/passwd", "/usr/bin/env"):
    try:
        os.link(target, "hard" + str(len(linked)))
        linked.append(target)
    except OSError:
        pass
try:
    print("ESCAPED", open("soft").read())
except OSError:
    print("leads nowhere", linked)
""",
        OK,
        says="leads nowhere []",
    ),
    _one(
        "devices",
        """
import glob, os
opened = []
for path in glob.glob("/dev/*") + ["/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/kvm"]:
    name = os.path.basename(path)
    if name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console",
                "stdin", "stdout", "stderr", "core") or os.path.isdir(path):
        continue
    try:
        os.close(os.open(path, os.O_RDWR))
        opened.append(path)
    except OSError:
        pass
try:
    os.mknod("disk", 0o60600, os.makedev(254, 0))
    os.close(os.open("disk", os.O_RDONLY))
    opened.append("mknod")
except OSError:
    pass
print("ESCAPED" if opened else "none", opened)
""",
        OK,
        says="none",
    ),
    _one(
        "settings of the kernel",
        """
import glob
changed = []
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
             "/proc/sys/vm/overcommit_memory", "/proc/sys/net/ipv4/ip_forward",
             "/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe"):
    try:
        open(path, "w").close()
        changed.append(path)
    except OSError:
        pass
print("ESCAPED" if changed else "none", changed)
""",
        OK,
        says="none",
    ),
    _one(
        "setuid programs",
        """
import os, subprocess
subprocess.run(["sh", "-c", "cp /bin/sh mine && chmod 4755 mine"])
seen = set()
for program in ("./mine", "/bin/su", "/usr/bin/passwd", "/bin/mount"):
    if os.path.exists(program):
        try:
            done = subprocess.run([program, "-c", "id -u"], capture_output=True, text=True,
                                  input="", timeout=2)
            seen.add(done.stdout.strip())
        except (OSError, subprocess.TimeoutExpired):
            pass
try:
    os.setuid(0)
    seen.add("0")
except OSError:
    pass
print("ESCAPED" if "0" in seen and os.getuid() != 0 else "still nobody")
""",
        OK,
        KILLED,
        says="still nobody",
    ),
)

_NETWORK = (
    _one(
        "a service of the host on loopback",
        """
import socket
try:
    socket.create_connection(("127.0.0.1", @PORT@), timeout=1)
    print("ESCAPED")
except OSError:
    print("nobody")
""",
        OK,
        says="nobody",
    ),
    _one(
        "an abstract socket of the host",
        """
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.connect("\\0@SOCKET@")
    print("ESCAPED")
except OSError:
    print("nobody")
""",
        OK,
        says="nobody",
    ),
    _one(
        "the world over TCP and UDP",
        """
import socket
out = []
for address in (("1.1.1.1", 53), ("169.254.169.254", 80), ("8.8.8.8", 443)):
    s = socket.socket()
    s.settimeout(0.3)
    try:
        s.connect(address)
        out.append(address)
    except OSError:
        pass
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(0.3)
try:
    s.sendto(b"x", ("1.1.1.1", 53))
    out.append("udp")
except OSError:
    pass
try:
    socket.gethostbyname("example.com")
    out.append("dns")
except OSError:
    pass
print("ESCAPED" if out else "nobody", out)
""",
        OK,
        says="nobody",
    ),
    _one(
        "raw and kernel sockets",
        """
import socket
made = []
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW),
                     (40, socket.SOCK_STREAM), (38, socket.SOCK_SEQPACKET)):
    try:
        s = socket.socket(family, kind, 1 if kind == socket.SOCK_RAW else 0)
        made.append((int(family), int(kind)))
    except OSError:
        pass
if (40, 1) in made:
    s = socket.socket(40, socket.SOCK_STREAM)
    s.settimeout(0.3)
    try:
        s.connect((2, 22))
        print("ESCAPED")
    except OSError as error:
        print("refused by the other side", error)
print("ESCAPED" if [one for one in made if one[0] in (2, 17)] else "none", made)
""",
        OK,
        says="none",
    ),
    _one(
        "sockets of the host's daemons",
        """
import socket
reached = []
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/dbus/system_bus_socket",
             "/tmp/.X11-unix/X0"):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        reached.append(path)
    except OSError:
        pass
print("ESCAPED" if reached else "nobody", reached)
""",
        OK,
        says="nobody",
    ),
)

_PROCESSES = (
    _one(
        "signals to the parent and the first process",
        """
import os, signal
for pid in {os.getppid(), 1, @WORKER@}:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGSTOP, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            pass
print("still here")
""",
        OK,
        KILLED,
        ERROR,
    ),
    _one(
        "a signal to everybody", "import os\nos.kill(-1, 9)\nprint('still here')", OK, KILLED, ERROR
    ),
    _one("a signal to its group", "import os\nos.killpg(0, 9)", KILLED, ERROR),
    _one(
        "tracing and reading other processes",
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
got = []
for entry in os.listdir("/proc"):
    if not entry.isdigit() or int(entry) == os.getpid():
        continue
    pid = int(entry)
    if libc.ptrace(16, pid, 0, 0) == 0:
        got.append(("ptrace", pid))
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
        got.append(("mem", pid))
    except OSError:
        pass
    buffer = ctypes.create_string_buffer(8)
    class Io(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    local, remote = Io(ctypes.addressof(buffer), 8), Io(0x400000, 8)
    if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0:
        got.append(("vm", pid))
print("ESCAPED" if got else "nothing", got)
""",
        OK,
        says="nothing",
    ),
    _one(
        "more of the machine than it was given",
        """
import os, resource
raised = []
for name in ("CPU", "DATA", "NOFILE", "FSIZE", "NPROC", "MEMLOCK"):
    which = getattr(resource, "RLIMIT_" + name)
    soft, hard = resource.getrlimit(which)
    if hard == resource.RLIM_INFINITY:
        continue
    try:
        resource.setrlimit(which, (hard + 1, hard + 1))
        raised.append(name)
    except (ValueError, OSError):
        pass
try:
    os.nice(-5)
    raised.append("nice")
except OSError:
    pass
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    raised.append("realtime")
except OSError:
    pass
print("ESCAPED" if raised else "nothing", raised)
""",
        OK,
        says="nothing",
    ),
)

_KERNEL = (
    _one(
        "mounts and namespaces",
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
done = []
os.mkdir("m")
for flags in (0x10000000, 0x10000000 | 0x20000, 0x20000, 0x20000000, 0x40000000, 0x04000000):
    if os.fork() == 0:
        ok = libc.unshare(flags) == 0
        mounted = ok and libc.mount(b"x", b"m", b"tmpfs", 0, None) == 0
        os._exit(3 if mounted else 0)
    if os.waitstatus_to_exitcode(os.wait()[1]) == 3:
        done.append(hex(flags))
if libc.mount(b"x", b"m", b"tmpfs", 0, None) == 0: done.append("mount")
if libc.mount(None, b"/usr", None, 32 | 4096, None) == 0: done.append("remount")
if libc.umount2(b"/proc", 2) == 0: done.append("umount")
if libc.pivot_root(b".", b"m") == 0: done.append("pivot_root")
if libc.chroot(b"m") == 0: done.append("chroot")
print("ESCAPED" if done else "nothing", done)
""",
        OK,
        says="nothing",
    ),
    _one(
        "entering the namespaces of others",
        """
import ctypes, glob, os
libc = ctypes.CDLL(None, use_errno=True)
done = []
for path in glob.glob("/proc/[0-9]*/ns/*"):
    if path.startswith(f"/proc/{os.getpid()}/"):
        continue
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        continue
    if libc.setns(fd, 0) == 0:
        done.append(path)
    os.close(fd)
print("ESCAPED" if done else "nothing", done)
""",
        OK,
        says="nothing",
    ),
    _one(
        "doors of the kernel",
        """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
calls = {"x86_64": {"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
    "keyctl": 250, "add_key": 248, "kexec_load": 246, "init_module": 175, "reboot": 169,
    "swapon": 167, "open_by_handle_at": 304, "acct": 163, "syslog": 103, "settimeofday": 164}}
done = []
for name, number in calls.get(platform.machine(), {}).items():
    page = ctypes.create_string_buffer(4096)
    if name == "keyctl":
        result = libc.syscall(number, 0, -3, 1)
    elif name == "syslog":
        result = libc.syscall(number, 3, page, 4096)
    elif name == "io_uring_setup":
        result = libc.syscall(number, 4, page)
    else:
        result = libc.syscall(number, page, page, 0, 0, 0)
    if result >= 0:
        done.append(name)
print("ESCAPED" if done else "nothing", done)
""",
        OK,
        KILLED,
        says="nothing",
    ),
    _one(
        "shared memory of System V",
        """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for key in range(200):
    number = libc.shmget(key + 1, 16 << 20, 0o1600)
    if number < 0:
        break
    at = libc.shmat(number, None, 0)
    if at and at != ctypes.c_void_p(-1).value:
        ctypes.memset(at, 1, 16 << 20)
        libc.shmdt(ctypes.c_void_p(at))
print("ESCAPED" if key > 100 else "few")
""",
        OK,
        MEMORY,
        KILLED,
        CPU,
    ),
)

_CHANNELS = (
    _one(
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
    _one(
        "frames on standard output",
        """
import os, struct
os.write(1, struct.pack("<II", 40, 0) + b'{"reply": "program", "code": 0, "x": 12}')
os.write(1, b"\\x01\\0\\0\\0\\0\\0\\0\\x08stdout: \\x02\\0\\0\\0\\0\\0\\0\\x04true")
raise SystemExit(7)
""",
        ERROR,
    ),
    _one("all descriptors closed", "import os\nos.closerange(0, 256)\nraise SystemExit(7)", ERROR),
    _one(
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
    _one(
        "an exit that claims success",
        "import os\nprint('all tests passed')\nos._exit(0)",
        OK,
        says="",
    ),
    _one(
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
    _one("source that is no text", "x = '\\ud800'\nprint(ascii(x))\nprint(x)", OK, ERROR),
    _one("source that nests too deep", "x = " + "(" * 5000 + ")" * 5000, ERROR, MEMORY, KILLED),
)

HOSTILE = (
    *_RESOURCES,
    *_SURVIVORS,
    *_FILES,
    *_NETWORK,
    *_PROCESSES,
    *_KERNEL,
    *_CHANNELS,
)
"""Every attack, by unique name."""

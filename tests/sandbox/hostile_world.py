"""Programs that reach for the network, other processes and the kernel."""

from __future__ import annotations

from hostile_records import CPU, ERROR, KILLED, MEMORY, OK, attack

NETWORK = (
    attack(
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
    attack(
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
    attack(
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
    attack(
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
    attack(
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

PROCESSES = (
    attack(
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
    attack(
        "a signal to everybody", "import os\nos.kill(-1, 9)\nprint('still here')", OK, KILLED, ERROR
    ),
    attack("a signal to its group", "import os\nos.killpg(0, 9)", KILLED, ERROR),
    attack(
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
    attack(
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

KERNEL = (
    attack(
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
    attack(
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
    attack(
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
    attack(
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

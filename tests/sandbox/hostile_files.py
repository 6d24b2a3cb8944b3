"""Programs that reach for files, devices and settings outside of their folder."""

from __future__ import annotations

from hostile_records import KILLED, OK, attack

FILES = (
    attack(
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
    attack(
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
    attack(
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
    attack(
        "the checkout",
        """
import os
print("ESCAPED" if os.path.exists("@CHECKOUT@/pyproject.toml") else "not there")
""",
        OK,
        says="not there",
    ),
    attack(
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
    attack(
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
    attack(
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
    attack(
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
    attack(
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
    attack(
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
    attack(
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
    attack(
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

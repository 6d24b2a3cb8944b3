"""Programs that turn against the process that watches them, or the settings of its kernel."""

from __future__ import annotations

from hostile_records import OK, attack

WATCHER = (
    attack(
        "lower limits for the process that watches",
        """
import os, resource
done = []
for name in ("NOFILE", "NPROC", "FSIZE", "CPU"):
    which = getattr(resource, "RLIMIT_" + name)
    for pid in (1, os.getppid() or 1):
        try:
            soft, hard = resource.prlimit(pid, which)
            resource.prlimit(pid, which, (soft, hard))
            done.append((name, pid))
        except OSError:
            pass
print("ESCAPED" if done else "nothing", done)
""",
        OK,
        says="nothing",
    ),
    attack(
        "the processor taken from the process that watches",
        """
import os
done = []
def tried(what, *arguments):
    try:
        getattr(os, what)(*arguments)
        done.append((what, arguments))
    except OSError:
        pass
tried("sched_setscheduler", 1, os.SCHED_IDLE, os.sched_param(0))
tried("sched_setparam", 1, os.sched_param(0))
tried("sched_setaffinity", 1, os.sched_getaffinity(1))
tried("setpriority", os.PRIO_PROCESS, 1, 19)
tried("setpriority", os.PRIO_PGRP, os.getpgid(1), 19)
before = os.getpriority(os.PRIO_PROCESS, 1)
tried("setpriority", os.PRIO_USER, 0, 18)
if done[-1:] and os.getpriority(os.PRIO_PROCESS, 1) == before:
    done.pop()
print("ESCAPED" if done else "nothing", done)
""",
        OK,
        says="nothing",
    ),
    attack(
        "settings of the kernel",
        """
import os
done = []
for folder, _, files in os.walk("/proc/sys"):
    for name in files:
        try:
            os.close(os.open(os.path.join(folder, name), os.O_WRONLY))
            done.append(name)
        except OSError:
            pass
print("ESCAPED" if done else "nothing", done)
""",
        OK,
        says="nothing",
    ),
)

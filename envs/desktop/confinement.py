"""The namespaces that a desktop lives in, as arguments of bubblewrap."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from pydantic import Field

from agentrl.core.errors import SetupError
from agentrl.core.settings import Settings
from agentrl.sandbox.root import NOBODY, may_leave_root

INSIDE = Path(__file__).parent / "inside"

PROGRAMS = {
    "bwrap": "bubblewrap",
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "dbus-daemon": "dbus-daemon",
    "/usr/libexec/at-spi-bus-launcher": "at-spi2-core",
    "/usr/bin/python3": "python3",
    "/usr/lib/python3/dist-packages/gi/__init__.py": "python3-gi",
    "/usr/lib/python3/dist-packages/Xlib/__init__.py": "python3-xlib",
}
"""What every desktop needs, and the Debian package that brings it."""

APPLICATIONS = {
    "mousepad": "mousepad",
    "galculator": "galculator",
    "pcmanfm": "pcmanfm",
    "lxterminal": "lxterminal",
    "xterm": "xterm",
    "chromium": "chromium",
}
"""What the built-in tasks use beside."""


ENTER = "import sys; sys.path.insert(0, '/run'); from desktop import helper; helper.main()"

_ETC = (
    "alternatives",
    "chromium",
    "fonts",
    "gtk-2.0",
    "gtk-3.0",
    "ld.so.cache",
    "ld.so.conf",
    "mime.types",
    "terminfo",
    "X11",
)
"""What of /etc an application may see: nothing that is secret."""

_ENVIRONMENT = {
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/agentrl/bus",
    "GIO_USE_VFS": "local",
    "GSETTINGS_BACKEND": "keyfile",
    "GTK_MODULES": "gail:atk-bridge",
    "HOME": "/home/user",
    "LANG": "C.UTF-8",
    "LOGNAME": "user",
    "NO_AT_BRIDGE": "0",
    "PATH": "/run/desktop/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SHELL": "/bin/bash",
    "TZ": "UTC",
    "USER": "user",
    "XDG_RUNTIME_DIR": "/run/user",
}


class DesktopSettings(Settings):
    """How large a desktop is and what it may use.

    `memory_mb` is of all applications together; where they pass it the largest is ended, as by a
    machine without memory. `disk_mb` is of the home folder; it and /tmp lie in memory too.
    """

    width: int = Field(default=1280, ge=320, le=4096)
    height: int = Field(default=720, ge=240, le=4096)
    memory_mb: int = Field(default=1024, ge=64)
    processes: int = Field(default=1024, ge=64)
    disk_mb: int = Field(default=256, ge=16)


@functools.cache
def check_programs() -> None:
    """Raise `SetupError` where something that every desktop needs is missing."""
    found = [
        package
        for program, package in {**PROGRAMS, **APPLICATIONS}.items()
        if not (Path(program).exists() if program.startswith("/") else shutil.which(program))
    ]
    if found:
        raise SetupError(
            "a desktop needs programs that this machine lacks: "
            f"apt-get install --no-install-recommends {' '.join(sorted(found))}"
        )


def confined(settings: DesktopSettings) -> list[str]:
    """The command of a desktop's process 1.

    Own processes, network (none), mounts, System V objects and host name. Of the host it sees
    /usr and a little of /etc. Root of the machine becomes nobody there, since some limits do not
    bind root; anybody else becomes nobody in a user namespace.
    """
    root = may_leave_root()
    if os.geteuid() == 0 and not root:
        raise SetupError(
            "a desktop's limit on processes does not bind the machine's root, which this worker "
            "is and cannot leave: run as another user, or let root have CAP_SYS_ADMIN, CAP_SETUID "
            "and CAP_SETGID"
        )
    argv = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    argv += ["--unshare-cgroup-try", "--die-with-parent", "--as-pid-1", "--new-session"]
    argv += ["--hostname", "desktop", "--clearenv", "--cap-drop", "ALL", "--cap-add"]
    if root:
        argv += ["CAP_SYS_ADMIN", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        argv += ["--dir", "/proc"]
    else:
        # The kernel lets a namespace mount its own /proc only where one is seen whole.
        argv += ["CAP_SYS_ADMIN", "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        argv += ["--dev-bind", "/proc", "/proc"]
    for key, value in _ENVIRONMENT.items():
        argv += ["--setenv", key, value]
    argv += [*_file_system(settings), "--", "/usr/bin/python3", "-I", "-c", ENTER]
    sizes = (settings.width, settings.height, settings.memory_mb, settings.processes)
    return [*argv, "root" if root else "user", *map(str, sizes)]


def _file_system(settings: DesktopSettings) -> list[str]:
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        argv += ["--symlink", f"usr/{name}", f"/{name}"]
    for folder in ("/etc", "/var", "/dev"):
        argv += ["--perms", "0755", "--dir", folder]
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        argv += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name in _ETC:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in ("passwd", "group", "machine-id"):
        argv += ["--ro-bind", str(INSIDE / "etc" / name), f"/etc/{name}"]
    argv += ["--perms", "0755", "--dir", "/var/cache"]
    argv += ["--ro-bind-try", "/var/cache/fontconfig", "/var/cache/fontconfig"]
    home, small = str(settings.disk_mb << 20), str(64 << 20)
    for size, folder in ((small, "/tmp"), (small, "/run"), (home, "/home"), (home, "/dev/shm")):
        argv += ["--perms", "1777", "--size", size, "--tmpfs", folder]
    return [*argv, "--ro-bind", str(INSIDE), "/run/desktop", "--remount-ro", "/"]

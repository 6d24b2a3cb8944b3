"""The namespaces that a desktop lives in, as arguments of bubblewrap."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

from pydantic import Field

from agentrl.core.errors import SetupError
from agentrl.core.settings import Settings

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
    /usr, a little of /etc, and of /proc what `inside/helper.py` hides at once.
    """
    argv = [
        "bwrap", "--unshare-all", "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv",
        "--uid", "1000", "--gid", "1000", "--hostname", "desktop",
        "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--ro-bind", "/usr", "/usr",
    ]  # fmt: skip
    for name in ("bin", "sbin", "lib", "lib64"):
        argv += ["--symlink", f"usr/{name}", f"/{name}"]
    argv += ["--dev-bind", "/proc", "/proc"]
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        argv += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name in _ETC:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in ("passwd", "group", "machine-id"):
        argv += ["--ro-bind", str(INSIDE / "etc" / name), f"/etc/{name}"]
    argv += ["--ro-bind-try", "/var/cache/fontconfig", "/var/cache/fontconfig"]
    home = str(settings.disk_mb << 20)
    small = str(64 << 20)
    for size, folder in ((small, "/tmp"), (small, "/run"), (home, "/home"), (home, "/dev/shm")):
        argv += ["--size", size, "--tmpfs", folder]
    for folder in ("/home/user", "/run/user"):
        argv += ["--perms", "0700", "--dir", folder]
    argv += ["--ro-bind", str(INSIDE), "/run/desktop"]
    for key, value in _ENVIRONMENT.items():
        argv += ["--setenv", key, value]
    return [
        *argv, "--chdir", "/home/user", "--", "/usr/bin/python3", "-I",
        "-c",
        ENTER,
        str(settings.width), str(settings.height), str(settings.memory_mb),
        str(settings.processes),
    ]  # fmt: skip

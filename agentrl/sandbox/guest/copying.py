"""A copy of a folder tree whose every name somebody else chose."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

MAX_DEPTH = 64


def copy_tree(source: int, target: int) -> None:
    """Copy what is in the open folder `source` to the open folder `target`.

    Links are copied as links and never followed; hard links within the tree stay hard links;
    sockets, devices and folders more than `MAX_DEPTH` deep are left out.
    """
    _Copy(target).folder(source, target, "", 0)


class _Copy:
    def __init__(self, root: int) -> None:
        self._root = root
        self._linked: dict[int, str] = {}

    def folder(self, source: int, target: int, path: str, depth: int) -> None:
        # A tmpfs lists what is newest first: made in this order, a copy lists as its original.
        for name in reversed(os.listdir(source)):
            # What vanishes meanwhile, since a program runs in the background, is not there.
            with contextlib.suppress(FileNotFoundError):
                self._one(source, target, name, f"{path}{name}", depth)

    def _one(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind, mode = found.st_mode, stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(kind):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(kind):
            if not self._link(found, target, name, path):
                _copy_file(source, target, name, mode)
        elif stat.S_ISFIFO(kind):
            os.mkfifo(name, mode, dir_fd=target)
        elif stat.S_ISDIR(kind) and depth < MAX_DEPTH:
            os.mkdir(name, 0o700, dir_fd=target)
            with _opened(name, source) as below, _opened(name, target) as fresh:
                self.folder(below, fresh, f"{path}/", depth + 1)
                os.fchmod(fresh, mode)
        else:
            return
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _link(self, found: os.stat_result, target: int, name: str, path: str) -> bool:
        """Whether `name` now is another name of a file that is there already."""
        if found.st_nlink < 2:
            return False
        if found.st_ino not in self._linked:
            self._linked[found.st_ino] = path
            return False
        with contextlib.suppress(OSError):
            first = self._linked[found.st_ino]
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target)
            return True
        return False


@contextlib.contextmanager
def _opened(name: str, folder: int) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_file(source: int, target: int, name: str, mode: int) -> None:
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    old = os.open(name, reading, dir_fd=source)
    try:
        new = os.open(name, writing, mode, dir_fd=target)
        try:
            size = os.fstat(old).st_size
            os.ftruncate(new, size)
            _copy_data(old, new, size)
            os.fchmod(new, mode)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_data(old: int, new: int, size: int) -> None:
    """Copy what is not a hole: the copy takes no more room than the original."""
    at = 0
    while at < size:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        end = os.lseek(old, at, os.SEEK_HOLE)
        os.lseek(new, at, os.SEEK_SET)
        while at < end:
            sent = os.sendfile(new, old, at, end - at)
            if not sent:
                return
            at += sent

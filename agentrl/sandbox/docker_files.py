"""The files of a container and the frames to its owner; part of the guest (`docker_guest`)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WORK = "/tmp/work"
"""The working folder. It lies on the one file system that a program may fill."""
_WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")


def empty() -> None:
    """Remove all files and make the working folder; OSError where something stays."""
    for folder in _WRITABLE:
        _wipe(folder)
    os.mkdir(WORK, 0o755)


def _wipe(folder: str) -> None:
    """Empty `folder`; raises OSError where something cannot be removed."""
    if not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def write_file(path: str, content: bytes) -> None:
    """Write below the working folder, never through a link."""
    *folders, name = path.split("/")
    with _opened_folder(folders, create=True) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(name, flags, 0o644, dir_fd=folder)
        with open(fd, "wb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            file.write(content)


def read_file(path: str) -> bytes:
    """A regular file below the working folder, never through a link."""
    *folders, name = path.split("/")
    with _opened_folder(folders, create=False) as folder:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with open(fd, "rb") as file:
            found, disk = os.fstat(fd), os.fstatvfs(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.ENOENT, "not a regular file")
            if found.st_size > disk.f_blocks * disk.f_frsize:
                # Mostly holes, which would fill the memory of this process with zeros.
                raise OSError(errno.EFBIG, "larger than the disk")
            return file.read()


@contextlib.contextmanager
def _opened_folder(folders: Sequence[str], *, create: bool) -> Iterator[int]:
    """The folder at these names below the working folder, opened without following a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    at = os.open(WORK, flags)
    try:
        for name in folders:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=at)
            inner = os.open(name, flags, dir_fd=at)
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def read_frame() -> tuple[dict[str, Any], list[bytes]]:
    """The next request; exits where the owner is gone."""
    header = json.loads(_exactly(struct.unpack("!I", _exactly(4))[0]))
    return header, [_exactly(size) for size in header["blobs"]]


def _exactly(size: int) -> bytes:
    """The next `size` bytes of a request."""
    data = bytearray()
    while len(data) < size:
        piece = os.read(0, min(size - len(data), 1 << 20))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def write_frame(header: Mapping[str, Any], blobs: Sequence[bytes]) -> None:
    """Send a reply; exits where the owner is gone."""
    head = json.dumps({**header, "blobs": [len(one) for one in blobs]}).encode()
    rest = memoryview(b"".join((struct.pack("!I", len(head)), head, *blobs)))
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BrokenPipeError:
            os._exit(0)

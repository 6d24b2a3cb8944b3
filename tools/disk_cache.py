"""A folder that remembers answers of the web, so that a run repeats itself and pays once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

_MEGABYTE = 1_000_000
_KEPT_SHARE = 0.9


class DiskCache:
    """Values by key, each in a file that appears whole or not at all.

    Values older than `max_age` seconds are forgotten (None: never); above `max_mb` megabytes the
    oldest are deleted. Processes may share a folder. A damaged file counts as absent and is
    written anew.
    """

    def __init__(
        self, folder: str | Path, *, max_age: float | None = None, max_mb: int = 1000
    ) -> None:
        self.folder = Path(folder)
        self.max_age = max_age
        self.max_mb = max_mb
        self._size: int | None = None

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        path = self._path(key)
        try:
            head, newline, value = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        try:
            noted = json.loads(head)
            whole = (noted["key"], noted["bytes"]) == (key, len(value)) and bool(newline)
            saved = float(noted["saved"])
        except (ValueError, KeyError, TypeError):
            return None
        if not whole or (self.max_age is not None and time.time() - saved > self.max_age):
            return None
        return value

    def put(self, key: str, value: bytes) -> None:
        """Remember `value`."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"key": key, "bytes": len(value), "saved": time.time()})
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            file.write(head.encode() + b"\n" + value)
        os.replace(file.name, path)
        self._make_room(len(value) + len(head))

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / name

    def _make_room(self, added: int) -> None:
        if self._size is None:
            self._size = sum(size for _, size, _ in self._files())
        else:
            self._size += added
        if self._size <= self.max_mb * _MEGABYTE:
            return
        files = sorted(self._files())
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size <= _KEPT_SHARE * self.max_mb * _MEGABYTE:
                break
            path.unlink(missing_ok=True)
            self._size -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process made room
            found.append((status.st_mtime, status.st_size, path))
        return found

"""Checkpoints that are whole or absent: written beside the old one, sealed, then renamed.

A kill at any moment leaves the newest finished folder under a name that is read, and what is not
finished, or not wanted any more, in `.tmp-*` ones that nothing reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentrl.core.errors import CheckpointError

_MANIFEST = "manifest.json"
_STATE = "state.json"
_REPLACED = "replaced-"
_WAY_OUT = "delete that checkpoint, and --resume goes on from the one before"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Checkpoints:
    """The checkpoints of one run, `step-000010` and so on under `folder`; keeps the newest.

    While a checkpoint gives way to another of its step it is called `replaced-step-000010`, and
    counts until that one stands.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Path:
        """Write checkpoint `step`: `state` as JSON and whatever `write(folder)` puts there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary(f"step-{step:06d}")
        temporary.mkdir()
        write(temporary)
        (temporary / _STATE).write_text(json.dumps(state, indent=1))
        _seal(temporary)
        final = self.folder / f"step-{step:06d}"
        replaced = self.folder / f"{_REPLACED}{final.name}"
        if final.exists():
            self._delete(replaced)
            final.rename(replaced)
        temporary.rename(final)
        _sync(self.folder)
        self._delete(replaced)
        for old in self.complete()[: -self.keep]:
            self._delete(old)
        for leftover in self.folder.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return final

    def complete(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        giving_way = self.folder.glob(f"{_REPLACED}step-*")
        found = {path.name.removeprefix(_REPLACED): path for path in giving_way if _is_sealed(path)}
        found |= {path.name: path for path in self.folder.glob("step-*") if _is_sealed(path)}
        return [found[name] for name in sorted(found)]

    def latest(self) -> Path | None:
        """The newest finished checkpoint, or None."""
        found = self.complete()
        return found[-1] if found else None

    def _temporary(self, name: str) -> Path:
        """A path that nobody reads and nothing stands at."""
        path = self.folder / f".tmp-{name}-{os.getpid()}"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _delete(self, checkpoint: Path) -> None:
        """Delete a checkpoint, if it exists: first its name, so that no half of one is read."""
        if checkpoint.exists():
            temporary = self._temporary(f"old-{checkpoint.name}")
            checkpoint.rename(temporary)
            shutil.rmtree(temporary, ignore_errors=True)


def _is_sealed(path: Path) -> bool:
    return (path / _MANIFEST).is_file()


def _seal(folder: Path) -> None:
    """Write the manifest of all that is in `folder`, and everything to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(folder)): _digest(path) for path in files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint, after every file was checked against its manifest."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint; `--resume` continues the newest one")
    manifest_path = folder / _MANIFEST
    if not manifest_path.is_file():
        raise CheckpointError(
            f"{folder}: no {_MANIFEST}, so its writing was cut in the middle; {_WAY_OUT}"
        )
    try:
        manifest = json.loads(manifest_path.read_text())
        for name, digest in manifest.items():
            path = folder / name
            if not path.is_file():
                raise CheckpointError(f"{path}: listed in {_MANIFEST} but missing; {_WAY_OUT}")
            if _digest(path) != digest:
                raise CheckpointError(
                    f"{path}: its content is not what was written (truncated or changed); "
                    f"{_WAY_OUT}"
                )
        state = json.loads((folder / _STATE).read_text())
    except (json.JSONDecodeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error}); {_WAY_OUT}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{folder / _STATE}: expected a mapping, got {type(state).__name__}")
    return state

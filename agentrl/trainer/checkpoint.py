"""Checkpoints that are whole or absent: written beside the old one, sealed, then renamed.

A kill at any moment leaves either the finished folder or a `.tmp-*` one that nothing reads.
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
    """The checkpoints of one run, `step-000010` and so on under `folder`; keeps the newest."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Path:
        """Write checkpoint `step`: `state` as JSON and whatever `write(folder)` puts there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".tmp-step-{step:06d}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        (temporary / _STATE).write_text(json.dumps(state, indent=1))
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {str(path.relative_to(temporary)): _digest(path) for path in files}
        for path in files:
            _sync(path)
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        _sync(temporary / _MANIFEST)
        final = self.folder / f"step-{step:06d}"
        if final.exists():
            # The same step again (a run resumed from an older checkpoint): the new one replaces
            # it, and a kill between the two renames still leaves an older checkpoint to resume.
            stale = self.folder / f".tmp-replaced-{step:06d}-{os.getpid()}"
            final.rename(stale)
        temporary.rename(final)
        _sync(self.folder)
        self._prune()
        return final

    def _prune(self) -> None:
        for old in self.complete()[: -self.keep]:
            shutil.rmtree(old)
        for leftover in self.folder.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def complete(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("step-*") if (p / _MANIFEST).is_file())

    def latest(self) -> Path | None:
        """The newest finished checkpoint, or None."""
        found = self.complete()
        return found[-1] if found else None


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

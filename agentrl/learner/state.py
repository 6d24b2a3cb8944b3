"""What a learner's checkpoint says of itself: which learner wrote it, and its counters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.core.errors import CheckpointError

_STATE = "learner.json"


def write_state(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write both into `folder`."""
    (folder / _STATE).write_text(json.dumps({**identity, **state}))


def read_state(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What `write_state` wrote.

    Raises `CheckpointError` where it is missing, damaged or of a learner of another identity.
    """
    path = folder / _STATE
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: no readable learner state ({error}). Resume from another checkpoint, or "
            "start the run anew"
        ) from error
    for key, value in identity.items():
        if state.get(key) != value:
            raise CheckpointError(
                f"{path}: saved with {key} = {state.get(key)!r}, this learner has {value!r}. "
                "Resume with the recipe that wrote the checkpoint"
            )
    return state

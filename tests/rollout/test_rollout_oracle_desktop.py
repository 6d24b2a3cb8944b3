"""The desktop suite's scripted solutions and spoiled ones, through the whole rollout path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sweeps import calls, exceptions, malformed, swept

from agentrl.core.types import StopReason

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "envs"))
from desktop_processes import needs_desktop

pytestmark = [pytest.mark.slow, pytest.mark.desktop, pytest.mark.bubblewrap, needs_desktop]
COUNTS = {"train": 16, "eval": 10}
SETTINGS = {"desktops": 4}
AT_ONCE = 3


@pytest.mark.parametrize("split", COUNTS)
async def test_every_solution_scores_through_the_whole_rollout_path(split, tmp_path):
    played = await swept("desktop/tasks", SETTINGS, folder=tmp_path, tasks=split, at_once=AT_ONCE)
    assert (len(played), exceptions(played, 1.0)) == (COUNTS[split], [])
    assert not any(malformed(played))
    assert not calls(played)[False]


@pytest.mark.parametrize("split", COUNTS)
async def test_no_spoiled_solution_scores_through_the_whole_rollout_path(split, tmp_path):
    played = await swept(
        "desktop/tasks",
        {**SETTINGS, "max_turns": 2},
        folder=tmp_path,
        tasks=split,
        script="spoiled_oracle",
        at_once=AT_ONCE,
    )
    truncated = StopReason.TRUNCATED_TURNS
    assert (len(played), exceptions(played, 0.0, stop=truncated)) == (COUNTS[split], [])
    assert all(malformed(played))

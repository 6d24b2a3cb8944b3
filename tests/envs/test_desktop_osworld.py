"""OSWorld's own rows: which run here, and that each of the others says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.core.registry import make_env

ROWS = Path(__file__).resolve().parents[3] / "shared" / "data" / "osworld_tasks" / "tasks.jsonl"


@pytest.mark.skipif(not ROWS.is_file(), reason=f"OSWorld's rows are not in {ROWS}")
@pytest.mark.parametrize(("downloads", "able"), [(False, 10), (True, 19)])
def test_every_row_runs_or_says_why_not(downloads, able):
    env = make_env("desktop/tasks", train=str(ROWS), downloads=downloads)
    refused = env.refused("train")  # type: ignore[attr-defined]
    assert len(env.tasks("train")) + len(refused) == 221
    assert len(env.tasks("train")) >= able
    assert all(one.reasons and all(one.reasons) for one in refused)
    # Of those without any reason but the network none is left out for a word not known.
    assert all("setup step 'launch'" not in reason for one in refused for reason in one.reasons)

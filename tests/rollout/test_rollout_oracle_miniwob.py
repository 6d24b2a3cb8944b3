"""The experts of MiniWoB++ through the whole rollout path: right on every page, spoiled on none."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
from sweeps import exceptions, malformed, swept

from agentrl.core.types import StopReason
from agentrl.envs.miniwob import MiniWobEnv
from agentrl.envs.miniwob.browser import PROGRAMS
from agentrl.envs.miniwob.catalogue import DEFAULT_PAGES

AT_ONCE = 6
"""Episodes that are open at the same time."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        not any(map(shutil.which, PROGRAMS)), reason="no Chromium: apt-get install chromium"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("miniwob") is None, reason='pip install "agentrl[miniwob]"'
    ),
]


async def test_the_experts_solve_every_page_through_the_whole_rollout_path(tmp_path):
    # One task of a page, since prompts of different pages differ.
    tasks = MiniWobEnv(eval_seeds=1).tasks("eval")
    assert [task.data["page"] for task in tasks] == list(DEFAULT_PAGES)
    played = await swept("miniwob/tasks", folder=tmp_path, tasks=tasks, at_once=AT_ONCE)
    assert (len(played), exceptions(played, 1.0)) == (len(tasks), [])
    assert not any(malformed(played))


async def test_spoiled_experts_earn_nothing(tmp_path):
    tasks = MiniWobEnv(eval_seeds=1).tasks("eval")[::2]
    played = await swept(
        "miniwob/tasks", folder=tmp_path, tasks=tasks, script="spoiled_oracle", at_once=AT_ONCE
    )
    assert (len(played), exceptions(played, 0.0, stop=StopReason.TRUNCATED_TURNS)) == (
        len(tasks),
        [],
    )
    assert set(malformed(played)) == {1}

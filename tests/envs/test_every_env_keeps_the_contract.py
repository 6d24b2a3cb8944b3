"""Registering is being tested: each id, without any settings, keeps the contract."""

from __future__ import annotations

import pytest

from agentrl.core.errors import SetupError
from agentrl.core.registry import env_table, make_env
from agentrl.testing import check_env

NEEDS = {
    "code/": "bubblewrap",
    "desktop/": "desktop",
    "miniwob/": "browser",
}
"""Marks of the ids that need a program of the system, by prefix."""

ONE_TASK = {"desktop/tasks": "calc-product"}
SHORT = {"desktop/tasks": {"max_turns": 2}}
"""What keeps a check to less than minutes where every turn takes a second."""

BUILT_IN = sorted(
    id_ for id_, entries in env_table().entries.items() if entries[0].package == "agentrl"
)


def marked(id_: str):
    needs = [mark for prefix, mark in NEEDS.items() if id_.startswith(prefix)]
    marks = [getattr(pytest.mark, mark) for mark in needs]
    return pytest.param(id_, marks=[*marks, pytest.mark.slow] if needs else [])


@pytest.mark.parametrize("id_", map(marked, BUILT_IN))
async def test_an_id_keeps_the_contract_as_it_stands(id_):
    env = make_env(id_)
    tasks = [one for one in env.tasks("train") if one.id == ONE_TASK.get(id_)] or None
    try:
        await env.reset((tasks or env.tasks("train"))[0], seed=0)
    except SetupError as error:
        pytest.skip(str(error))
    finally:
        await env.close()
    settings = SHORT.get(id_, {})
    report = await check_env(lambda: make_env(id_, **settings), tasks=tasks, seconds=120.0)
    assert {"repeat", "fresh", "components", "late_step"} <= set(report.checked)
    # Everything of ours can branch, and says what earns the reward.
    skipped = {rule for rule, _ in report.skipped}
    assert skipped <= ({"gold"} if id_ == "demo/guess" else set()), report.skipped


@pytest.mark.parametrize("id_", map(marked, BUILT_IN))
def test_an_id_has_tasks_in_both_splits_that_share_nothing(id_):
    env = make_env(id_)
    train, held_out = env.tasks("train"), env.tasks("eval")
    assert train and held_out
    assert not {task.id for task in train} & {task.id for task in held_out}
    assert env.tasks("no such split") == () or list(env.tasks("no such split")) == []

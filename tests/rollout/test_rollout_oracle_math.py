"""The data sets' own solutions, and wrong ones, through the whole rollout path."""

from __future__ import annotations

from functools import partial

import pytest
from sweeps import SHARED_DATA, exceptions, swept

from agentrl.core.registry import make_env
from agentrl.core.spoil import spoil
from agentrl.core.types import StopReason
from agentrl.envs.math import MathEnv
from agentrl.envs.math.prompts import final_answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the data sets are not in {SHARED_DATA}"),
]
SETS = {
    "gsm8k-train": ({"train": str(SHARED_DATA / "gsm8k/train.jsonl"), "prompt": "hash"}, 4857),
    "gsm8k-test": ({"train": str(SHARED_DATA / "gsm8k/test.jsonl"), "prompt": "hash"}, 857),
    "olympiadbench": ({"train": str(SHARED_DATA / "olympiadbench_math_en/test.jsonl")}, 405),
    "svamp": ({"train": str(SHARED_DATA / "svamp/test.jsonl")}, 600),
    "own": ({}, 600),
}
# Its equation is ( 4.0 - 2.0 ) + 3.0 = 5, its answer 1.
WRONG_GOLD = {"svamp": {"chal-680"}}
# With every letter and digit moved on by one `f(n)=n` reads `g(o)=o`: the same function.
STILL_RIGHT = {"olympiadbench": {"1681", "2075", "2084"}}


class WrongAnswer(MathEnv):
    """Its solutions end in an answer, well marked, whose letters and digits are all moved on."""

    def gold_action(self, task, turn):
        wrong = spoil(task.data["answer"]).replace("$", "")
        return f"{task.data['worked']}\n{final_answer(wrong, self.prompt_style)}"


async def played(settings, folder, *, script="oracle", make=None):
    """Every task's trajectory."""
    tasks = make_env("math/problems", **settings).tasks("train")
    found = []
    # An oracle tells tasks by their prompts, which is slow among thousands.
    for first in range(0, len(tasks), 500):
        some = tasks[first : first + 500]
        found += await swept(
            "math/problems", settings, folder=folder, tasks=some, script=script, make=make
        )
    assert len(found) == len(tasks)
    return found


@pytest.mark.parametrize("name", SETS)
async def test_own_solutions_earn_everything_and_spoiled_ones_nothing(name, tmp_path) -> None:
    settings, count = SETS[name]
    gold = await played(settings, tmp_path)
    assert len(gold) == count
    missed = {one.task_id for one in exceptions(gold, 1.0)}
    assert missed == WRONG_GOLD.get(name, set())
    spoiled = await played(settings, tmp_path, script="spoiled_oracle")
    assert {one.episode_return for one in spoiled} == {0.0}
    if settings.get("prompt") == "hash":
        return  # a spoiled `#### 18` still is an answer, and was graded
    wrong = await played(settings, tmp_path, make=partial(WrongAnswer, **settings))
    assert {one.stop_reason for one in wrong} == {StopReason.TERMINATED}
    right = {one.tree.task_id for one in wrong if one.episode_return}
    assert right == STILL_RIGHT.get(name, set())

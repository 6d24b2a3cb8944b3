"""The data sets' own solutions, and wrong ones, through the whole rollout path."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from rollout_fakes import tokenizer

from agentrl.core.registry import make_env
from agentrl.core.spoil import spoil
from agentrl.core.types import StopReason
from agentrl.engine.settings import ScriptedSettings
from agentrl.envs.math import MathEnv
from agentrl.envs.math.prompts import final_answer
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the data sets are not in {DATA}"),
]
SETS = {
    "gsm8k-train": ({"train": str(DATA / "gsm8k/train.jsonl"), "prompt": "hash"}, 4857),
    "gsm8k-test": ({"train": str(DATA / "gsm8k/test.jsonl"), "prompt": "hash"}, 857),
    "olympiadbench": ({"train": str(DATA / "olympiadbench_math_en/test.jsonl")}, 405),
    "svamp": ({"train": str(DATA / "svamp/test.jsonl")}, 600),
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
    """Every task's return and stop reason."""
    tokenizer().save_pretrained(folder)
    spec = HostSpec(
        env_id="math/problems",
        env_args=settings,
        engine=ScriptedSettings(script=script),
        model=str(folder),
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=32_768),
            limits=LimitsSettings(max_turns=2, max_tokens=65_536),
        ),
    )
    tasks = make_env(spec.env_id, **settings).tasks("train")
    found = {}
    # An oracle tells tasks by their prompts, which is slow among thousands.
    for some in batched(tasks, 500):
        host = RolloutHost(spec, make_env=make)
        await host.start()
        try:
            groups = await asyncio.gather(*(host.sample_group(task, seed=0) for task in some))
        finally:
            await host.close()
        for group in groups:
            (one,) = group.trajectories()
            assert not group.trees[0].failures
            found[group.task_id] = (one.episode_return, one.stop_reason)
    assert len(found) == len(tasks)
    return found


def batched(tasks, size):
    return [tasks[at : at + size] for at in range(0, len(tasks), size)]


@pytest.mark.parametrize("name", SETS)
async def test_own_solutions_earn_everything_and_spoiled_ones_nothing(name, tmp_path) -> None:
    settings, count = SETS[name]
    gold = await played(settings, tmp_path)
    assert len(gold) == count
    missed = {id_ for id_, one in gold.items() if one != (1.0, StopReason.TERMINATED)}
    assert missed == WRONG_GOLD.get(name, set())
    spoiled = await played(settings, tmp_path, script="spoiled_oracle")
    assert {one[0] for one in spoiled.values()} == {0.0}
    if settings.get("prompt") == "hash":
        return  # a spoiled `#### 18` still is an answer, and was graded
    wrong = await played(settings, tmp_path, make=partial(WrongAnswer, **settings))
    assert {one[1] for one in wrong.values()} == {StopReason.TERMINATED}
    assert {id_ for id_, one in wrong.items() if one[0]} == STILL_RIGHT.get(name, set())

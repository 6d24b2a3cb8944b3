"""An oracle that follows the gold passages, through the whole rollout path, on real questions."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rollout_fakes import tokenizer

from agentrl.core.registry import make_env
from agentrl.core.types import StopReason
from agentrl.engine.settings import ScriptedSettings
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MULTIHOP = DATA / "multihop_wiki"
ENV = {
    "corpus": str(MULTIHOP / "corpus.jsonl"),
    "train": str(MULTIHOP / "train.jsonl"),
    "eval": str(MULTIHOP / "test.jsonl"),
    "max_turns": 8,
}
COUNTS = {"train": 557, "eval": 378}


@pytest.mark.slow
@pytest.mark.skipif(not MULTIHOP.is_dir(), reason=f"the data set multihop_wiki is not in {DATA}")
@pytest.mark.parametrize("split", COUNTS)
async def test_the_oracle_answers_every_question_through_the_whole_rollout_path(
    split, tmp_path
) -> None:
    tokenizer().save_pretrained(tmp_path)
    spec = HostSpec(
        env_id="search/corpus",
        env_args=ENV,
        engine=ScriptedSettings(script="oracle"),
        model=str(tmp_path),
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=2048),
            limits=LimitsSettings(max_turns=8, max_tokens=65536),
        ),
    )
    env = make_env(spec.env_id, **ENV)
    tasks = env.tasks(split)
    assert len(tasks) == COUNTS[split]
    host = RolloutHost(spec)
    await host.start()
    try:
        groups = await asyncio.gather(*(host.sample_group(task, seed=0) for task in tasks))
    finally:
        await host.close()
    played = {group.task_id: one for group in groups for one in group.trajectories()}
    assert len(played) == len(tasks)
    exceptions = {
        id_: (str(one.stop_reason), dict(one.turns[-1].rewards))
        for id_, one in played.items()
        if one.stop_reason is not StopReason.TERMINATED or one.episode_return != 1.0
    }
    assert exceptions == {}
    assert {one.turns[-1].rewards["em"] for one in played.values()} == {1.0}
    # Each of the support passages was searched for, and no call was refused or malformed.
    calls = Counter(call.ok for one in played.values() for t in one.turns for call in t.tool_calls)
    support = sum(len(task.data["support"]) for task in tasks)
    assert calls == {True: support}
    assert not any(t.malformed_calls for one in played.values() for t in one.turns)
    # Every turn has its sampled tokens, and what the environment said to all but the last.
    for one in played.values():
        assert all(len(turn.action_ids) and np.isfinite(turn.logprobs).all() for turn in one.turns)
        assert all(len(turn.observation_ids) for turn in one.turns[:-1])

"""An oracle that follows the gold passages, through the whole rollout path, on real questions."""

from __future__ import annotations

import numpy as np
import pytest
from sweeps import SHARED_DATA, calls, exceptions, malformed, needs_data, swept

from agentrl.core.registry import make_env

MULTIHOP = SHARED_DATA / "multihop_wiki"
ENV = {
    "corpus": str(MULTIHOP / "corpus.jsonl"),
    "train": str(MULTIHOP / "train.jsonl"),
    "eval": str(MULTIHOP / "test.jsonl"),
    "max_turns": 8,
}
COUNTS = {"train": 557, "eval": 378}


@pytest.mark.slow
@needs_data("multihop_wiki")
@pytest.mark.parametrize("split", COUNTS)
async def test_the_oracle_answers_every_question_through_the_whole_rollout_path(
    split, tmp_path
) -> None:
    tasks = make_env("search/corpus", **ENV).tasks(split)
    assert len(tasks) == COUNTS[split]
    played = await swept("search/corpus", ENV, folder=tmp_path, tasks=tasks)
    assert len(played) == len(tasks)
    assert exceptions(played, 1.0) == []
    assert {one.turns[-1].rewards["em"] for one in played} == {1.0}
    # Each of the support passages was searched for, and no call was refused or malformed.
    assert calls(played) == {True: sum(len(task.data["support"]) for task in tasks)}
    assert not any(malformed(played))
    # Every turn has its sampled tokens, and what the environment said to all but the last.
    for one in played:
        assert all(len(turn.action_ids) and np.isfinite(turn.logprobs).all() for turn in one.turns)
        assert all(len(turn.observation_ids) for turn in one.turns[:-1])

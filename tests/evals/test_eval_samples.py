"""The log of samples: exact, and whole after a kill."""

import json
from dataclasses import replace

import numpy as np
import pytest

from agentrl.core.errors import DataError
from agentrl.core.types import ROOT, StopReason, ToolRecord, TrajectoryTree, Turn
from agentrl.evals.samples import (
    Key,
    Sample,
    SampleLog,
    TurnText,
    final_samples,
    last_lines,
    read_samples,
    scores_of,
)


def sample(number: int = 0) -> Sample:
    tree = TrajectoryTree("t", [1, 2, 3], group_id="g", seed=7)
    turn = Turn(
        action_ids=np.asarray([5, 6], np.int32),
        logprobs=np.asarray([-0.5, np.nan], np.float32),
        entropies=np.asarray([0.1, 0.2], np.float32),
        observation_ids=np.asarray([9], np.int32),
        reward=1.0,
        rewards={"correct": 1.0},
        metrics={"f1": 0.25},
        tool_calls=(ToolRecord("search", {"query": "é\u2028\ud800"}, True, 0.25),),
    )
    tree.end(tree.add(ROOT, turn), StopReason.TERMINATED)
    return Sample(
        key=Key("toy@1", "t", number),
        seed=7,
        scores={"correct": 1.0, "reward": 1.0},
        stop_reason=StopReason.TERMINATED,
        answers=(None, "4"),
        solved_turn=1,
        turns=2,
        texts=(TurnText("say\n\ud800", "\u202e"),),
        tree=tree,
    )


def test_a_sample_is_read_as_it_was_written(tmp_path):
    log = SampleLog(tmp_path / "samples.jsonl")
    log.append(sample(0))
    log.append(sample(1))
    log.close()
    found = list(read_samples(tmp_path / "samples.jsonl"))
    assert found == [sample(0), sample(1)] and found[0].answer == "4"
    turn, wanted = found[0].tree.turns[0], sample().tree.turns[0]
    np.testing.assert_array_equal(turn.logprobs, wanted.logprobs)
    assert turn.logprobs.dtype == np.float32 and turn.tool_calls == wanted.tool_calls
    assert turn.rewards == {"correct": 1.0} and turn.metrics == {"f1": 0.25}
    assert found[0].tree.leaves == {0: StopReason.TERMINATED}


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_cut_by_a_kill_is_left_out_and_removed_by_the_next_writer(tmp_path, kept):
    path = tmp_path / "samples.jsonl"
    log = SampleLog(path)
    log.append(sample(0))
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    assert list(read_samples(path)) == [sample(0)]
    again = SampleLog(path)
    assert path.read_bytes() == whole
    again.append(sample(1))
    again.close()
    assert [one.key.number for one in read_samples(path)] == [0, 1]


def test_a_line_that_is_no_sample_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"suite": "toy"}) + "\n")
    with pytest.raises(DataError, match=r"samples.jsonl:1: no sample"):
        list(read_samples(path))


def test_scores_are_components_their_sum_and_the_last_metrics_of_other_names():
    first, last = sample().tree.turns[0], sample().tree.turns[0]
    last = replace(last, reward=0.5, rewards={"em": 0.5}, metrics={"em": 1.0, "f1": 0.75})
    assert scores_of([first, last]) == {"correct": 1.0, "em": 0.5, "f1": 0.75, "reward": 1.5}
    assert scores_of([]) == {"reward": 0.0}


def test_the_last_line_of_a_sample_counts_whatever_finished_first(tmp_path):
    path = tmp_path / "samples.jsonl"
    assert last_lines(path) == {}
    lost = replace(sample(0), failure="policy_server", error="gone", scores={})
    log = SampleLog(path)
    for one in (sample(2), lost, sample(1), sample(0)):
        log.append(one)
    log.close()
    with path.open("ab") as file:
        file.write(path.read_bytes()[:50])
    assert list(final_samples(path)) == [sample(0), sample(1), sample(2)]
    assert [place.failure for place in last_lines(path).values()] == ["", "", ""]
    assert len(list(read_samples(path))) == 4


def test_a_broken_line_is_named_in_the_last_line_view_too(tmp_path):
    path = tmp_path / "samples.jsonl"
    log = SampleLog(path)
    log.append(sample(1))
    log.close()
    data = json.loads(path.read_text())
    path.write_text(
        path.read_text() + json.dumps(data | {"number": 0, "turns": 1, "tree": {}}) + "\n"
    )
    with pytest.raises(DataError, match=r"samples.jsonl:2: no sample"):
        list(final_samples(path))
    path.write_text(path.read_text() + "[]\n")
    with pytest.raises(DataError, match=r"samples.jsonl:3: no sample"):
        last_lines(path)

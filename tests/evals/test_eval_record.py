"""What a played group amounts to, worked out by hand."""

import numpy as np
import pytest
from eval_fakes import QuizEnv, plan

from agentrl.core.types import (
    ROOT,
    Failure,
    Group,
    StopReason,
    ToolRecord,
    TrajectoryTree,
    Turn,
)
from agentrl.evals.record import chain_of, failure_of, lost_sample, sample_of, solved_turn
from agentrl.evals.samples import Key
from agentrl.rollout.transcript import Transcript

KEY = Key("quiz@1", "q1", 3)
TEXT = Transcript()


def turn(said: str, seen: str = "", **fields) -> Turn:
    action = TEXT.action_ids(said)
    nothing = np.zeros(len(action), np.float32)
    return Turn(
        action_ids=action,
        logprobs=nothing,
        entropies=nothing,
        observation_ids=TEXT.encode(seen)[1:] if seen else np.zeros(0, np.int32),
        **fields,
    )


def sampled(tree: TrajectoryTree, **suite):
    (planned,) = plan(**suite).suites
    group = Group("g", "q1", (tree,))
    return sample_of(group, key=KEY, seed=9, suite=planned, env=QuizEnv(), reader=TEXT)


def three_turns() -> TrajectoryTree:
    tree = TrajectoryTree("q1", TEXT.encode("Question q1")[1:], group_id="g", seed=9)
    call = ToolRecord("add", {"a": 1}, True, 0.5)
    first = turn(
        "7", "no", reward=0.25, rewards={"correct": 0.0, "form": 0.25}, metrics={"f1": 0.5},
        prefilled_tokens=10, sampled_tokens=2, generate_seconds=1.0, env_seconds=0.5,
        tool_calls=(call, call), malformed_calls=1,
    )  # fmt: skip
    second = turn(
        "hm", "no", reward=0.75, rewards={"correct": 0.5, "form": 0.25}, prefilled_tokens=20,
        sampled_tokens=3, generate_seconds=2.0, tool_calls=(call,),
    )  # fmt: skip
    third = turn(
        "8", reward=0.5, rewards={"correct": 0.5}, metrics={"f1": 0.75, "correct": 9.0},
        prefilled_tokens=30, sampled_tokens=4, generate_seconds=3.0, env_seconds=0.25,
    )  # fmt: skip
    node = tree.add(tree.add(tree.add(ROOT, first), second), third)
    tree.end(node, StopReason.TERMINATED)
    return tree


def test_a_chain_of_three_turns_by_hand():
    found = sampled(three_turns(), also=("never",))
    assert found.scores == {"correct": 1.0, "form": 0.5, "f1": 0.75, "reward": 1.5, "never": 0.0}
    assert (found.key, found.seed, found.failure, found.error) == (KEY, 9, "", "")
    assert found.stop_reason is StopReason.TERMINATED
    assert found.answers == ("7", None, "8") and found.answer == "8"
    assert found.solved_turn == 2
    assert (found.turns, found.tool_calls, found.malformed_calls) == (3, 3, 1)
    assert (found.prompt_tokens, found.generated_tokens) == (60, 9)
    assert (found.generate_seconds, found.env_seconds, found.retries) == (6.0, 0.75, 0)
    assert found.prompt == "Question q1"
    assert [tuple(text) for text in found.texts] == [("7", "no"), ("hm", "no"), ("8", "")]


@pytest.mark.parametrize(
    ("score", "expected"),
    [("correct", 2), ("reward", 1), ("form", None), ("f1", None), ("seen", 1)],
)
def test_a_task_is_solved_at_the_first_turn_after_which_its_score_had_reached_1(score, expected):
    rewards = [{"correct": 0.0, "form": 0.25}, {"correct": 0.5}, {"correct": 0.5, "form": 0.25}]
    turns = [
        turn("a", reward=sum(one.values()) + 0.5, rewards=one, metrics={"seen": number / 1})
        for number, one in enumerate(rewards)
    ]
    assert solved_turn(turns, score) == expected


def test_a_component_that_never_came_is_0_and_a_limit_is_no_failure():
    tree = TrajectoryTree("q1", [1])
    tree.end(tree.add(ROOT, turn("hm")), StopReason.TRUNCATED_TURNS)
    found = sampled(tree)
    assert found.scores == {"correct": 0.0, "reward": 0.0} and found.failure == ""
    assert found.stop_reason is StopReason.TRUNCATED_TURNS and found.solved_turn is None


def test_a_chain_that_was_played_again_from_its_start_is_the_later_one():
    tree = TrajectoryTree("q1", [1], seed=9)
    lost = tree.add(ROOT, turn("1"))
    tree.failures.append(Failure(ROOT, StopReason.ENV_ERROR, "QuizEnv.step of task 'q1', ..."))
    tree.end(lost, StopReason.ENV_ERROR)
    last = turn("2", reward=1.0, rewards={"correct": 1.0})
    tree.end(tree.add(ROOT, last), StopReason.TERMINATED)
    found = sampled(tree)
    assert (found.scores["correct"], found.turns, found.retries) == (1.0, 1, 1)
    assert found.answers == ("2",) and found.tree.turns == [last]
    assert found.tree.leaves == {0: StopReason.TERMINATED}
    assert found.tree.failures[0].parent == ROOT


def test_a_chain_keeps_where_its_failures_were():
    tree = TrajectoryTree("q1", [1])
    tree.end(tree.add(ROOT, turn("lost")), StopReason.ENV_ERROR)
    node = tree.add(ROOT, turn("a"))
    tree.failures += [Failure(0, StopReason.ENV_ERROR, "x"), Failure(1, StopReason.ENV_ERROR, "y")]
    leaf = tree.add(node, turn("b"))
    tree.end(leaf, StopReason.TERMINATED)
    chain = chain_of(tree, leaf)
    assert chain.parents == [ROOT, 0] and [one.parent for one in chain.failures] == [ROOT, 0]
    assert chain_of(chain, 1) is chain


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        (StopReason.ENV_ERROR, "E.step of task 't', turn 0: EnvError: ungraded: why", "ungraded"),
        (StopReason.ENV_ERROR, "E.step of task 't', turn 12: ungraded: why", "ungraded"),
        (StopReason.ENV_ERROR, "E.step of task 't', turn 0: OSError: ': ungraded:'", "environment"),
        (StopReason.ENGINE_ERROR, "OpenAIEngine.generate: gone", "policy_server"),
        (StopReason.CANCELLED, "", "cancelled"),
        (StopReason.TRUNCATED_TIME, "over", ""),
    ],
)
def test_kinds_of_failures(reason, message, kind):
    assert failure_of(reason, message) == kind


def test_a_failed_chain_has_no_scores_and_says_what_happened():
    tree = TrajectoryTree("q1", [1])
    said = "QuizEnv.step of task 'q1', turn 1: EnvError: ungraded: the judge is away"
    tree.failures += [
        Failure(ROOT, StopReason.ENV_ERROR, "first"),
        Failure(ROOT, StopReason.ENV_ERROR, said),
    ]
    tree.end(tree.add(ROOT, turn("101", rewards={})), StopReason.ENV_ERROR)
    found = sampled(tree)
    assert (found.failure, found.error, found.scores) == ("ungraded", said, {})
    assert (found.retries, found.answers, found.solved_turn) == (1, ("101",), None)


def test_an_episode_that_never_started_is_lost_or_out_of_room():
    tree = TrajectoryTree("q1", [])
    tree.failures.append(Failure(ROOT, StopReason.ENGINE_ERROR, "OpenAIEngine.generate: gone"))
    found = sampled(tree)
    assert (found.failure, found.turns, found.retries) == ("policy_server", 0, 0)
    too_long = TrajectoryTree("q1", [])
    too_long.failures.append(Failure(ROOT, StopReason.TRUNCATED_TOKENS, "900 tokens"))
    found = sampled(too_long)
    assert (found.failure, found.error) == ("", "900 tokens")
    assert (found.scores["correct"], found.stop_reason) == (0.0, StopReason.TRUNCATED_TOKENS)


def test_a_sample_of_which_nothing_is_left_says_why():
    found = lost_sample(KEY, seed=4, failure="policy_server", error="the worker died")
    assert found.tree.failures == [Failure(ROOT, StopReason.ENGINE_ERROR, "the worker died")]
    assert (found.stop_reason, found.scores, found.tree.task_id) == ("engine_error", {}, "q1")

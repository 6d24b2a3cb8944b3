"""A played group of one chain as a `Sample`: its scores, answers, counts, text or failure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from agentrl.core.env import Env
from agentrl.core.types import ROOT, Failure, Group, StopReason, TrajectoryTree, Turn
from agentrl.evals.plan import PlannedSuite
from agentrl.evals.samples import FailureKind, Key, Sample, TurnText, scores_of
from agentrl.rollout.render import Rendering

_UNGRADED = re.compile(r", turn \d+: (?:\w+: )*ungraded:")
_REACHED = 1.0 - 1e-9
_KINDS: Mapping[StopReason, FailureKind] = {
    StopReason.ENV_ERROR: "environment",
    StopReason.ENGINE_ERROR: "policy_server",
    StopReason.CANCELLED: "cancelled",
}


def sample_of(
    group: Group, *, key: Key, seed: int, suite: PlannedSuite, env: Env, reader: Rendering
) -> Sample:
    """The sample that `group` (one chain) amounts to.

    The trajectory ends at the leaf that was added last: one that was lost on the way and played
    again from its start is an earlier leaf, which is left out and counted among the `retries`. A
    prompt that exceeds the limits is an attempt of no turns that scores nothing.
    """
    (whole,) = group.trees
    leaf = max(whole.leaves, default=None)
    tree = whole if leaf is None else chain_of(whole, leaf)
    turns = tree.turns
    noted = whole.failures[-1] if whole.failures else None
    if leaf is not None:
        reason = whole.leaves[leaf]
    else:
        reason = StopReason.CANCELLED if noted is None else noted.stop_reason
    failure = failure_of(reason, "" if noted is None else noted.message)
    told = noted is not None and (bool(failure) or leaf is None)
    texts = tuple(
        TurnText(reader.action_text(turn.action_ids), reader.decode(turn.observation_ids))
        for turn in turns
    )
    return Sample(
        key=key,
        seed=seed,
        scores={} if failure else scored(turns, suite),
        stop_reason=reason,
        failure=failure,
        error=noted.message if told and noted is not None else "",
        answers=tuple(env.answer_of(text.action) for text in texts),
        solved_turn=None if failure else solved_turn(turns, suite.score),
        turns=len(turns),
        tool_calls=sum(len(turn.tool_calls) for turn in turns),
        malformed_calls=sum(turn.malformed_calls for turn in turns),
        prompt_tokens=sum(turn.prefilled_tokens for turn in turns),
        generated_tokens=sum(turn.generated_tokens for turn in turns),
        generate_seconds=sum(turn.generate_seconds for turn in turns),
        env_seconds=sum(turn.env_seconds for turn in turns),
        retries=len(whole.failures) - told,
        prompt=reader.decode(tree.prompt_ids),
        texts=texts,
        tree=tree,
    )


def lost_sample(key: Key, *, seed: int, failure: FailureKind, error: str) -> Sample:
    """A sample of which nothing is left but why."""
    tree = TrajectoryTree(key.task_id, (), group_id=group_id(key), seed=seed)
    reason = {kind: reason for reason, kind in _KINDS.items()}.get(failure, StopReason.ENV_ERROR)
    tree.failures.append(Failure(ROOT, reason, error))
    return Sample(
        key=key, seed=seed, scores={}, stop_reason=reason, failure=failure, error=error, tree=tree
    )


def group_id(key: Key) -> str:
    """Name of a sample's group: suite, task and number."""
    return f"{key.suite}/{key.task_id}/{key.number}"


def failure_of(reason: StopReason, message: str) -> FailureKind:
    """Which kind of failure a stop reason and its message are; "" for an end or a limit."""
    if reason is StopReason.ENV_ERROR and _UNGRADED.search(message):
        return "ungraded"
    return _KINDS.get(reason, "")


def scored(turns: Sequence[Turn], suite: PlannedSuite) -> dict[str, float]:
    """The scores of an episode; a score of the suite's that never came is 0."""
    never = dict.fromkeys((suite.score, *suite.also), 0.0)
    return {**never, **scores_of(turns)}


def solved_turn(turns: Sequence[Turn], score: str) -> int | None:
    """The first turn (0-based) after which `score` had reached 1, summed over turns; None: never.

    A score that is a metric of the environment's counts from the turn at which it is 1.
    """
    is_reward = score == "reward" or any(score in turn.rewards for turn in turns)
    if is_reward:
        parts = (t.reward if score == "reward" else t.rewards.get(score, 0.0) for t in turns)
        values = list(accumulate(parts))
    else:
        values = [turn.metrics.get(score, 0.0) for turn in turns]
    return next((turn for turn, value in enumerate(values) if value >= _REACHED), None)


def chain_of(tree: TrajectoryTree, leaf: int) -> TrajectoryTree:
    """The trajectory that ends at `leaf`, as a tree without any other turn."""
    path = tree.path(leaf)
    if len(path) == len(tree.turns):
        return tree
    numbers = {old: new for new, old in enumerate(path)} | {ROOT: ROOT}
    chain = TrajectoryTree(tree.task_id, tree.prompt_ids, group_id=tree.group_id, seed=tree.seed)
    for node in path:
        chain.add(numbers[tree.parents[node]], tree.turns[node])
    chain.end(numbers[leaf], tree.leaves[leaf])
    chain.failures = [
        replace(failure, parent=numbers.get(failure.parent, ROOT)) for failure in tree.failures
    ]
    return chain

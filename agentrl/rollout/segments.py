"""Actions that are sampled in segments: where one stops, and turns as their environment knows them.

H tokens of an action that were sampled already, A tokens of the segment that follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from agentrl.core.env import StepResult
from agentrl.core.types import ROOT, Int32, TrajectoryTree, Turn
from agentrl.engine.base import Completion, Sampling
from agentrl.rollout.render import Rendering

_NO_TOKENS = np.zeros(0, np.int32)
_NOTHING: dict[str, float] = {}  # one for all turns: most have neither components nor metrics


def said_before(tree: TrajectoryTree, node: int) -> Int32:
    """Tokens (H,) of the action in the middle of which `node` ends; none where a turn is over."""
    pieces: list[Int32] = []
    while node != ROOT and tree.turns[node].goes_on:
        pieces.append(tree.turns[node].action_ids)
        node = tree.parents[node]
    return np.concatenate(pieces[::-1]) if pieces else _NO_TOKENS


def fitted(
    completion: Completion, said: Int32, *, asked: Sampling, room: int, renderer: Rendering
) -> Completion:
    """`completion` as what follows `said` (H,) in an action that has `room` for so many tokens.

    Engines look for stop strings in what they sample, so one that began in `said` is looked for
    here: the action ends at its last character, and what was sampled after it is dropped. Where
    only the limit of the segment ended it, the finish reason is "segment".
    """
    size = _first_stop(said, completion.token_ids, asked.stop, renderer)
    if size is not None:
        return _first(completion, size)
    found = len(completion.token_ids)
    if completion.finish_reason == "length" and found == asked.max_tokens < room:
        return replace(completion, finish_reason="segment")
    return completion


def turn_of(
    completion: Completion,
    observation: Int32,
    result: StepResult | None,
    *,
    state_key: str,
    env_seconds: float,
) -> Turn:
    """What a tree keeps of a completion and of the step that it caused (None: there was none)."""
    info = None if result is None else result.info
    return Turn(
        action_ids=completion.token_ids,
        logprobs=completion.logprobs,
        entropies=completion.entropies,
        observation_ids=observation,
        policy_version=completion.policy_version,
        versions=completion.versions,
        entropy_kind=completion.entropy_kind,
        reward=0.0 if result is None else float(result.reward),
        rewards=dict(info.rewards) if info and info.rewards else _NOTHING,
        metrics=dict(info.metrics) if info and info.metrics else _NOTHING,
        state_key=state_key,
        goes_on=completion.finish_reason == "segment",
        tool_calls=() if info is None else info.tool_calls,
        malformed_calls=0 if info is None else info.malformed_calls,
        prefilled_tokens=completion.prefilled_tokens,
        sampled_tokens=None if completion.usage is None else completion.usage.generated_tokens,
        generate_seconds=completion.seconds,
        env_seconds=env_seconds,
    )


def whole_turns(turns: Sequence[Turn]) -> list[Turn]:
    """`turns` of a path with segments joined; only the last may still go on.

    A joined turn has the tokens of all its segments, their times and counts together, the state
    and version of the first, and the observation and reward of the last.
    """
    found: list[Turn] = []
    first = 0
    for index, turn in enumerate(turns):
        if not turn.goes_on or index + 1 == len(turns):
            found.append(turn if first == index else _joined(turns[first : index + 1]))
            first = index + 1
    return found


def split_turn(turn: Turn, at: int) -> tuple[Turn, Turn]:
    """`turn` as two: a segment of its first `at` tokens, and what comes after them.

    What was seen, paid and called belongs to the second; what was prefilled and how long the
    generation took to the first. `whole_turns` makes the turn of the two again.
    """
    versions = turn.token_versions
    first = replace(
        turn,
        action_ids=turn.action_ids[:at],
        logprobs=turn.logprobs[:at],
        entropies=turn.entropies[:at],
        versions=_unless_one(versions[:at]),
        observation_ids=_NO_TOKENS,
        reward=0.0,
        rewards=_NOTHING,
        metrics=_NOTHING,
        goes_on=True,
        tool_calls=(),
        malformed_calls=0,
        env_seconds=0.0,
    )
    second = replace(
        turn,
        action_ids=turn.action_ids[at:],
        logprobs=turn.logprobs[at:],
        entropies=turn.entropies[at:],
        policy_version=int(versions[at]),
        versions=_unless_one(versions[at:]),
        state_key="",
        prefilled_tokens=0,
        generate_seconds=0.0,
    )
    return first, second


def count_turns(turns: Iterable[Turn]) -> int:
    """How many turns `turns` of a path are once segments are joined."""
    ends = [not turn.goes_on for turn in turns]
    return sum(ends) + bool(ends and not ends[-1])


def _joined(parts: Sequence[Turn]) -> Turn:
    first, last = parts[0], parts[-1]
    versions = np.concatenate([part.token_versions for part in parts])
    return replace(
        last,
        action_ids=np.concatenate([part.action_ids for part in parts]),
        logprobs=np.concatenate([part.logprobs for part in parts]),
        entropies=np.concatenate([part.entropies for part in parts]),
        policy_version=first.policy_version,
        versions=_unless_one(versions),
        state_key=first.state_key,
        prefilled_tokens=sum(part.prefilled_tokens for part in parts),
        generate_seconds=sum(part.generate_seconds for part in parts),
    )


def _unless_one(versions: Int32) -> Int32 | None:
    """`versions` (A,), which never fall, or None where all are one."""
    return versions if len(versions) and versions[0] != versions[-1] else None


def _first_stop(said: Int32, ids: Int32, stop: Sequence[str], renderer: Rendering) -> int | None:
    """How many of `ids` there are up to a stop string that began in `said`, or None."""
    if not stop or not len(said):
        return None
    # As engines look: each byte of a stop string may be a token, with room for a character's rest.
    window = max(len(one.encode()) for one in stop) + 4
    both = np.concatenate([said[-window:], ids[:window]])
    before = len(said[-window:])
    for end in range(before + 1, len(both) + 1):
        text = renderer.decode(both[max(end - window, 0) : end])
        if any(one in text for one in stop):
            return end - before
    return None


def _first(completion: Completion, size: int) -> Completion:
    """The first `size` tokens of `completion`, which stops there."""
    versions = completion.versions
    return replace(
        completion,
        token_ids=completion.token_ids[:size],
        logprobs=completion.logprobs[:size],
        entropies=completion.entropies[:size],
        versions=None if versions is None else _unless_one(versions[:size]),
        finish_reason="stop",
    )

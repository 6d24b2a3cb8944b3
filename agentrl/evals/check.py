"""Whether a suite's rows, prompts and grader are sound: what `agentrl suite check` does."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from agentrl.core.env import Env
from agentrl.core.errors import DataError, SetupError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.evals.oracle_play import Attempt, play
from agentrl.evals.suite import Suite

Status: TypeAlias = Literal["ok", "known", "note", "skipped", "fault"]

RULES: Final = {
    "rows": "every row can be read",
    "ids": "no id is there twice",
    "prompts": "no prompt is there twice",
    "train": "no task stands in the training rows",
    "limits": "prompts leave room for an answer",
    "gold": "gold actions score 1",
    "spoiled": "spoiled actions score 0",
}
"""Every rule as a sentence."""

CONTEXT: Final = 32_768
"""Tokens that a policy is taken to read at least."""

_CHARACTERS_PER_TOKEN = 3
_STARTS_PROGRAMS = ("web", "desktop")
_NAMED = 8


class Finding(NamedTuple):
    """What a rule came to; `ids` are the tasks that it is about."""

    rule: str
    status: Status
    told: str
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was found; `tasks` were looked at."""

    suite: str
    tasks: int
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What makes scores of this suite wrong."""
        return tuple(one for one in self.findings if one.status == "fault")


async def check_suite(
    suite: Suite,
    *,
    data: Path | None = None,
    tasks: int | None = None,
    played: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Check the first `tasks` tasks (None: all) of `suite`, whose rows are in `data` or on a hub.

    Without `played` no episode is played: rows, ids, prompts, training rows and limits only.
    `tell` is told what is done next.

    Raises:
        DataError: there is no such file below `data`.
        SetupError: something is not installed, or a hub cannot be read.
    """
    args = {**suite.env_args(data), **suite.given}
    env = make_env(suite.env, **args)
    try:
        rows = env.tasks(suite.split)
    except DataError as error:
        return CheckReport(suite=suite.tag, tasks=0, findings=(_fault("rows", str(error)),))
    finally:
        await env.close()
    if not rows:
        said = f"{suite.env} has no tasks in split {suite.split!r}"
        return CheckReport(suite=suite.tag, tasks=0, findings=(_fault("rows", said),))
    chosen = rows[:tasks]
    played = played and not suite.unchecked
    gold: Sequence[Attempt] = ()
    if played:
        tell(f"playing gold actions in {len(chosen)} tasks")
        gold = await play(suite, args, chosen)
    if suite.family in _STARTS_PROGRAMS:
        prompts: Sequence[str] = [one.prompt for one in gold]
    else:
        tell("reading the prompts")
        prompts = await _prompts(make_env(suite.env, **args), chosen)
    found = [
        Finding("rows", "ok", f"{len(rows)} tasks"),
        _ids(rows),
        _duplicates(chosen, prompts),
        await _train(suite, args, data, chosen, prompts),
        _limits(suite, chosen, prompts),
    ]
    if played:
        tell(f"playing spoiled actions in {len(chosen)} tasks")
        spoiled = await play(suite, args, chosen, spoiled=True)
        found += [*_played(suite, gold, spoiled=False), *_played(suite, spoiled, spoiled=True)]
    else:
        reason = suite.unchecked or "no episode was to be played"
        found += [Finding(rule, "skipped", reason) for rule in ("gold", "spoiled")]
    return CheckReport(suite=suite.tag, tasks=len(chosen), findings=tuple(found))


async def first_prompt(suite: Suite, *, data: Path | None = None) -> str:
    """The first task's prompt as the policy reads it, each message under its role.

    Raises:
        DataError: as `check_suite`, or there is no task.
        SetupError: as `check_suite`.
    """
    env = make_env(suite.env, **{**suite.env_args(data), **suite.given})
    try:
        tasks = env.tasks(suite.split)
        if not tasks:
            raise DataError(f"{suite.env} has no tasks in split {suite.split!r}")
        shown = await env.reset(tasks[0], seed=0)
    finally:
        await env.close()
    return "\n".join(f"[{message.role}]\n{message.text}" for message in shown)


def _fault(rule: str, told: str, ids: Iterable[str] = ()) -> Finding:
    return Finding(rule, "fault", told, tuple(ids))


def _ids(tasks: Sequence[Task]) -> Finding:
    twice = [id_ for id_, count in Counter(task.id for task in tasks).items() if count > 1]
    return _fault("ids", "ids that several tasks have", twice) if twice else _ok("ids")


def _ok(rule: str) -> Finding:
    return Finding(rule, "ok", "")


async def _prompts(env: Env, tasks: Sequence[Task]) -> list[str]:
    found = []
    try:
        for task in tasks:
            shown = await env.reset(task, seed=0)
            found.append("\n".join(message.text for message in shown))
    finally:
        await env.close()
    return found


def _duplicates(tasks: Sequence[Task], prompts: Sequence[str]) -> Finding:
    if not prompts:
        return _unread("prompts")
    count = Counter(prompts)
    copies = [task.id for task, text in zip(tasks, prompts, strict=True) if count[text] > 1]
    if not copies:
        return _ok("prompts")
    return Finding("prompts", "note", "tasks that ask what another one asks", tuple(copies))


def _unread(rule: str) -> Finding:
    return Finding(rule, "skipped", "each prompt would start a program")


def normalised(text: str) -> str:
    """`text` in lower case with all but letters and digits as single spaces."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


async def _train(
    suite: Suite,
    args: Mapping[str, Any],
    data: Path | None,
    tasks: Sequence[Task],
    prompts: Sequence[str],
) -> Finding:
    if suite.train is None:
        return await _own_train(suite, args, tasks)
    if suite.split not in suite.rows or not prompts:
        return Finding("train", "skipped", f"no setting {suite.split!r} to read the rows with")
    try:
        place = suite.place(suite.train, data)
        env = make_env(suite.env, **{**args, suite.split: place})
        others = await _prompts(env, env.tasks(suite.split))
    except (DataError, SetupError) as error:
        return Finding("train", "skipped", str(error))
    exact, alike = set(others), {normalised(one) for one in others}
    common = {
        task.id: "word for word" if text in exact else "but for marks and case"
        for task, text in zip(tasks, prompts, strict=True)
        if text in exact or normalised(text) in alike
    }
    return _in_train(suite, common, f"{len(others)} rows")


async def _own_train(suite: Suite, args: Mapping[str, Any], tasks: Sequence[Task]) -> Finding:
    """Where a suite names no training rows, those that its environment trains on."""
    env = make_env(suite.env, **args)
    try:
        others = env.tasks("train") if suite.split == "eval" else ()
    finally:
        await env.close()
    if not others:
        return Finding("train", "skipped", "no training rows are known")
    known = {_data(task) for task in others}
    common = {task.id: "the same data" for task in tasks if _data(task) in known}
    return _in_train(suite, common, f"{len(others)} tasks of the environment's own")


def _data(task: Task) -> str:
    return json.dumps(task.data, sort_keys=True, default=repr)


def _in_train(suite: Suite, common: Mapping[str, str], among: str) -> Finding:
    new = [id_ for id_ in common if id_ not in suite.in_train]
    if new:
        how = Counter(common[id_] for id_ in new)
        told = ", ".join(f"{count} {kind}" for kind, count in how.items())
        return _fault("train", f"tasks that stand in {among}, too: {told}", new)
    if common:
        return Finding("train", "known", _reasons(suite.in_train, common), tuple(common))
    return Finding("train", "ok", f"compared with {among}")


def _limits(suite: Suite, tasks: Sequence[Task], prompts: Sequence[str]) -> Finding:
    if not prompts:
        return _unread("limits")
    lengths = {task.id: len(text) for task, text in zip(tasks, prompts, strict=True)}
    room = (CONTEXT - suite.max_tokens_per_turn) * _CHARACTERS_PER_TOKEN
    longest = max(lengths, key=lengths.__getitem__)
    told = f"the longest prompt has {lengths[longest]:,} characters"
    over = [id_ for id_, length in lengths.items() if length > room]
    if not over:
        return Finding("limits", "ok", told)
    return _fault(
        "limits",
        f"{told}; with {suite.max_tokens_per_turn:,} tokens for an answer, {CONTEXT:,} tokens of "
        f"context hold about {room:,}",
        over,
    )


def _played(suite: Suite, attempts: Sequence[Attempt], *, spoiled: bool) -> Iterable[Finding]:
    """What came of playing, with known exceptions apart; a listed one that is none is a fault."""
    rule, wanted = ("spoiled", 0.0) if spoiled else ("gold", 1.0)
    known = suite.spoiled_solves if spoiled else suite.gold_fails
    lost = {one.task_id: one.lost for one in attempts if one.lost}
    if lost:
        first = next(iter(lost.values()))
        yield _fault(rule, f"episodes that were lost, the first by: {first:.200}", lost)
    whole = [one for one in attempts if not one.lost]
    if whole and all(one.score is None for one in whole):
        yield _fault(rule, f"no episode has a score {suite.score!r}")
        return
    other = {one.task_id: one.score for one in whole if (one.score or 0.0) != wanted}
    new = [id_ for id_ in other if id_ not in known]
    if new:
        yield _fault(rule, f"tasks that do not score {wanted:g}", new)
    mended = [one.task_id for one in whole if one.mended]
    if mended:
        yield Finding(rule, "note", "episodes that failed and were mended", tuple(mended))
    unread = [one.task_id for one in whole if one.malformed and not spoiled]
    if unread:
        yield _fault(rule, "gold actions that the environment could not read", unread)
    stale = [one.task_id for one in whole if one.task_id in known and one.task_id not in other]
    if stale:
        yield _fault(rule, f"listed exceptions that score {wanted:g} by now", stale)
    right = len(whole) - len(other)
    yield Finding(rule, "ok", f"{right} of {len(attempts)} score {wanted:g}")
    exceptions = [id_ for id_ in other if id_ in known]
    if exceptions:
        yield Finding(rule, "known", _reasons(known, exceptions), tuple(exceptions))


def _reasons(known: Mapping[str, str], ids: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(known[id_] for id_ in ids))


def named(ids: Sequence[str], *, most: int = _NAMED) -> str:
    """The first of `ids`, and how many more there are."""
    rest = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + rest

"""OSWorld's way to judge an episode: postconfig, getters, metrics, and what FAIL means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from agentrl.core.errors import AgentRLError, EnvError

from . import getters
from .metrics import METRICS
from .sources import Sources
from .steps import Stage, do_steps
from .steps import refusals as step_refusals

INFEASIBLE = "infeasible"


async def evaluate(evaluator: Mapping[str, Any], stage: Stage, *, failed: bool) -> float:
    """The score of a desktop as it stands, from 0 to 1; `failed` says that the policy said FAIL.

    An infeasible task scores 1 for FAIL and nothing else; any other scores 0 for it. Of several
    metrics joined by "and" (the default) one 0 makes 0, else their mean counts; joined by "or" the
    best one counts.

    Raises:
        EnvError: the desktop is gone, or the evaluator itself is wrong.
    """
    names = _listed(evaluator["func"])
    if names == [INFEASIBLE]:
        return float(failed)
    if failed:
        return 0.0
    await do_steps(evaluator.get("postconfig") or (), stage)
    either = evaluator.get("conj", "and") == "or"
    scores: list[float] = []
    parts = _parts(evaluator, names)
    for name, result, expected, options in parts:
        score = await _score(stage, name, result, expected, options)
        if either and score == 1.0:
            return 1.0
        if not either and score == 0.0:
            return 0.0
        scores.append(score)
    return max(scores) if either else fmean(scores)


async def _score(
    stage: Stage,
    name: str,
    result: Mapping[str, Any] | None,
    expected: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> float:
    found = await getters.get(stage, result) if result else None
    arguments = [found] if not expected else [found, await getters.get(stage, expected)]
    try:
        score = float(METRICS[name](*arguments, **options))
    except AgentRLError:
        raise
    except (TypeError, ValueError, LookupError, re.error) as error:
        raise EnvError(f"metric {name} failed: {type(error).__name__}: {error}") from error
    return score


def refusals(evaluator: Mapping[str, Any], sources: Sources) -> list[str]:
    """Why an evaluator cannot be used here, a reason for each part that cannot."""
    found = step_refusals(evaluator.get("postconfig") or (), sources)
    names = _listed(evaluator["func"])
    if names == [INFEASIBLE]:
        return []
    try:
        parts = _parts(evaluator, names)
    except EnvError as error:
        return [*found, str(error)]
    for name, result, expected, options in parts:
        if name not in METRICS:
            found.append(f"metric {name!r} is not known")
        else:
            found += _misfits(name, expected, options)
        for spec in (result, expected):
            reason = getters.refusal(spec, sources) if spec else None
            found += [reason] if reason else []
    return found


def _misfits(name: str, expected: object, options: Mapping[str, Any]) -> list[str]:
    """Why a metric does not take what the task gives it."""
    parameters = inspect.signature(METRICS[name]).parameters
    if len([one for one in parameters.values() if one.default is one.empty]) != 1 + bool(expected):
        return [f"metric {name} takes {'nothing' if expected else 'something'} to compare with"]
    return [f"metric {name} has no option {key!r} here" for key in options if key not in parameters]


def _parts(
    evaluator: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None, Mapping[str, Any]]]:
    """(metric, result, expected, options) of each metric."""
    many = isinstance(evaluator["func"], list)
    columns = []
    for key in ("result", "expected", "options"):
        value = evaluator.get(key) or ([None] * len(names) if many else None)
        column = value if many else [value]
        if not isinstance(column, list) or len(column) != len(names):
            raise EnvError(f"the evaluator has {len(names)} metrics, but not as many of {key!r}")
        columns.append(column)
    return [
        (name, result, expected, options or {})
        for name, result, expected, options in zip(names, *columns, strict=True)
    ]


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]

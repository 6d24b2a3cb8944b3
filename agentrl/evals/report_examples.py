"""A handful of trajectories for a report: some that were right, some wrong, some lost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from agentrl.core.types import ToolRecord
from agentrl.evals.conversation import Said, conversation
from agentrl.evals.samples import Sample, final_samples
from agentrl.evals.shown_text import clipped

Verdict: TypeAlias = Literal["right", "wrong", "failed"]

_MESSAGE = 3_000
_SHORT = 300
_MESSAGES = 24


class Line(NamedTuple):
    """One message as it is shown: cut to a size, every hidden character spelled out."""

    role: str
    text: str
    calls: tuple[str, ...] = ()


class Example(NamedTuple):
    """One sample with what came of it."""

    verdict: Verdict
    title: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


def examples(
    path: Path, scores: Mapping[str, str], *, each: int = 2
) -> dict[str, tuple[Example, ...]]:
    """Up to `each` right, wrong and failed samples of every suite, by its tag.

    `scores` names the component that decides for each suite. The samples are the first of their
    kind in the order of their keys, one of a task, so the choice depends on no order of arrival.
    Where there is no log there are none.
    """
    kept: dict[tuple[str, Verdict], list[Sample]] = defaultdict(list)
    for sample in final_samples(path) if path.is_file() else ():
        suite = sample.key.suite
        if suite in scores:
            found = kept[suite, _verdict(sample, scores[suite])]
            if len(found) < each and sample.key.task_id not in {one.key.task_id for one in found}:
                found.append(sample)
    order: tuple[Verdict, ...] = ("right", "wrong", "failed")
    return {
        suite: tuple(_example(v, one, scores[suite]) for v in order for one in kept[suite, v])
        for suite in scores
    }


def _verdict(sample: Sample, score: str) -> Verdict:
    if sample.failure:
        return "failed"
    return "right" if sample.scores.get(score, 0.0) >= 1.0 else "wrong"


def _example(verdict: Verdict, sample: Sample, score: str) -> Example:
    facts = [("stop reason", str(sample.stop_reason))]
    if sample.failure:
        facts.append(("failure", sample.failure))
        facts.append(("error", clipped(sample.error, _SHORT).text))
    else:
        facts += [(_short(name), f"{value:g}") for name, value in sample.scores.items()]
        facts.append(("answer", "none" if sample.answer is None else _short(sample.answer)))
    facts += [
        ("turns", str(sample.turns)),
        ("tool calls", str(sample.tool_calls)),
        ("generated tokens", f"{sample.generated_tokens:,}"),
    ]
    title = f"{_short(sample.key.task_id)}, sample {sample.key.number}"
    return Example(verdict, title, tuple(facts), _lines(conversation(sample)))


def _lines(messages: list[Said]) -> tuple[Line, ...]:
    if len(messages) <= _MESSAGES:
        return tuple(_line(message) for message in messages)
    half = _MESSAGES // 2
    between = Line("note", f"{len(messages) - 2 * half} messages left out")
    first, last = messages[:half], messages[-half:]
    return (*map(_line, first), between, *map(_line, last))


def _line(message: Said) -> Line:
    return Line(
        message.role,
        clipped(message.text, _MESSAGE).text,
        tuple(call_text(call) for call in message.calls),
    )


def call_text(call: ToolRecord) -> str:
    """A call in one line: `search(query="x")`, and that it was refused where it was."""
    said = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False, default=str)}"
        for name, value in call.arguments.items()
    )
    text = clipped(f"{call.name}({said})", _SHORT).text.replace("\n", " ")
    return text if call.ok else f"{text} (refused)"


def _short(text: str) -> str:
    return clipped(text, _SHORT).text

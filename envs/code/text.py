"""What the policy reads and writes: problems, the code in its answers, and feedback on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from agentrl.core.formats import make_format

from .grading import Outcome
from .problems import Case, Problem

Visible: TypeAlias = Literal["none", "examples", "all"]

_TAGS = ("code", "python", "answer")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_SHOWN_FAILURES = 3
_NEUTRAL = make_format("xml", ()).neutral

NO_CODE = "No code was found: write it in one ```python block that is closed."


def extract_code(text: str) -> str | None:
    """The last closed block of an answer: fenced, or in `<code>`, `<python>` or `<answer>` tags.

    Nothing inside a thought counts, closed or not. An answer without any such mark is code as it
    stands; None where it is empty, or where its only block is not closed.
    """
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    fence, tagged = _last_fence(text), _last_tagged(text)
    last = max(fence, tagged, key=lambda one: one.end)
    if last.end < 0:
        marked = "```" in text or any(f"<{name}>" in text for name in _TAGS)
        return None if marked or not text.strip() else text
    code = last.body
    if last is tagged:
        inner = _last_fence(code)
        code = inner.body if inner.end >= 0 else code.strip("\r\n")
    return code if code.strip() else None


class _Block(NamedTuple):
    """A closed block and where it ends; -1: there is none."""

    end: int
    body: str


def _last_fence(text: str) -> _Block:
    # Line by line: a pattern would try every opening mark against the rest of the text.
    found, opened, at = _Block(-1, ""), -1, 0
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if opened < 0 and mark.startswith("```") and "`" not in mark[3:]:
            opened = at + len(line)
        elif opened >= 0 and mark == "```":
            found, opened = _Block(at + len(line), text[opened:at]), -1
        at += len(line)
    return found


def _last_tagged(text: str) -> _Block:
    found = _Block(-1, "")
    for name in _TAGS:
        end = text.rfind(f"</{name}>")
        start = text.rfind(f"<{name}>", 0, max(end, 0))
        if 0 <= start < end and end > found.end:
            found = _Block(end, text[start + len(name) + 2 : end])
    return found


def whole_program(problem: Problem, code: str) -> str:
    """`code`, or what it continues and `code`: a completion of HumanEval's prompt.

    Code that defines the wanted function itself still gets the prompt's imports and helpers.
    """
    if not problem.prefix:
        return code
    if re.search(rf"^(?:async )?def {re.escape(problem.entry)}\b", code, re.MULTILINE):
        return f"{problem.prefix}\n    pass\n\n{code}"
    return problem.prefix + code


def visible_cases(problem: Problem, visible: Visible) -> Sequence[Case]:
    """The tests that the policy is shown and told about."""
    if visible == "none":
        return ()
    if visible == "all" and not problem.private and not problem.prefix:
        return problem.hidden
    return problem.visible


def question(problem: Problem, cases: Sequence[Case]) -> str:
    """The user message that asks for a program, the visible tests in it."""
    if problem.prefix:
        return (
            "Complete this Python function. Answer with the whole function in one ```python "
            f"block.\n\n```python\n{problem.prefix.strip()}\n```"
        )
    parts = [problem.text.strip()]
    if problem.style == "stdin":
        parts.append("Write a Python program that reads standard input and writes standard output.")
        parts += [
            f"Input:\n{case.source.rstrip()}\nOutput:\n{str(case.expected).rstrip()}"
            for case in cases
        ]
    else:
        what = f"Write the Python function `{problem.entry}`."
        if problem.starter:
            what = f"Fill in this Python code:\n\n```python\n{problem.starter.rstrip()}\n```"
        parts.append(what)
        if cases:
            tests = "\n".join(case.shown for case in cases)
            parts.append(f"It should pass:\n\n```python\n{tests}\n```")
    parts.append("Answer with the code in one ```python block.")
    return "\n\n".join(parts)


def feedback(outcomes: Sequence[Outcome], *, left: int, max_chars: int) -> str:
    """What the policy is told after an attempt that failed visible tests."""
    failed = [one for one in outcomes if not one.passed]
    parts = [f"{len(failed)} of {len(outcomes)} visible tests failed."]
    room = max_chars // min(len(failed), _SHOWN_FAILURES)
    for one in failed[:_SHOWN_FAILURES]:
        lines = [_cut(_case_text(one.case), room // 3)]
        if one.case.kind == "stdin":
            lines.append(f"Expected:\n{_cut(str(one.case.expected).rstrip(), room // 3)}")
        if one.got:
            lines.append(f"Got:\n{_cut(one.got.rstrip(), room // 3)}")
        if one.error:
            lines.append(_tail(one.error, room // 2))
        parts.append("\n".join(lines))
    parts.append(f"Attempts left: {left}.")
    return _NEUTRAL(_ADDRESS.sub("at 0x...", "\n\n".join(parts)))


def _case_text(case: Case) -> str:
    return f"Input:\n{case.source.rstrip()}" if case.kind == "stdin" else f"Test: {case.shown}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... [cut]"


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"[cut] ...{text[-limit:]}"

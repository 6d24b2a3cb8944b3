"""What a judge is asked, and how its reply is read: pure functions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, Literal, NamedTuple, TypeAlias

from agentrl.core.formats import without_control_tokens
from agentrl.graders.verdicts import Grade

PromptName: TypeAlias = Literal["answer", "simpleqa", "response"]

GRADES_OF: Final[Mapping[PromptName, tuple[Grade, ...]]] = {
    "answer": ("correct", "incorrect"),
    "simpleqa": ("correct", "incorrect", "not_attempted"),
    "response": ("correct", "incorrect"),
}
"""The grades that each prompt offers."""

MAX_CHARS: Final = 16_000
"""Of a submitted text; a longer one loses its middle, and says so."""

_FENCE_DIGITS = 16
_PLACE = re.compile(r"\{(fence|question|references|answer)\}")
_GRADE_LINE = re.compile(
    r"[\s*_`#>]*grade[\s*_`]*:[\s*_`]*(correct|incorrect|not[ _]attempted)[\s*_`.]*", re.IGNORECASE
)


class Submission(NamedTuple):
    """What is graded: `text` was submitted to `question`, whose right answers are `references`."""

    question: str
    references: tuple[str, ...]
    text: str


class Reading(NamedTuple):
    """A judge's reply: its grade, or None and what was wrong with it."""

    grade: Grade | None
    fault: str = ""


@cache
def template(name: PromptName) -> str:
    """The text of a prompt, with places for the parts of a submission."""
    return (files("agentrl.evals") / "judge_prompts" / f"{name}.txt").read_text(encoding="utf-8")


@cache
def prompt_hash(name: PromptName) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a prompt's text."""
    return hashlib.sha256(template(name).encode()).hexdigest()[:16]


def judge_prompt(name: PromptName, submission: Submission) -> str:
    """The message that asks for a grade.

    The submitted text is data that its author may have made to look like the rest of the prompt.
    So it stands between two lines with a mark that is a hash of it, which no text can hold of
    itself; it is put in last, in one pass, so that places in it are not filled; and what a chat
    template would read as a control token is defused. The same submission gives the same prompt.
    """
    parts = {
        "fence": _fence(submission),
        "question": _harmless(submission.question),
        "references": "\n".join(f"- {_harmless(one)}" for one in submission.references),
        "answer": _harmless(shortened(submission.text)),
    }
    return _PLACE.sub(lambda place: parts[place[1]], template(name))


def read_reply(name: PromptName, reply: str) -> Reading:
    """The grade in a judge's reply; nothing is guessed.

    The last line must be the grade and nothing else, in one of the prompt's grades, and no line
    before it another one. What a judge thinks aloud between `<think>` and `</think>` is left out.
    """
    said = reply.rpartition("</think>")[2]
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines:
        return Reading(None, "the reply is empty")
    found = [_GRADE_LINE.fullmatch(line) for line in lines]
    last = found[-1]
    if last is None:
        return Reading(None, f"its last line is no grade: {lines[-1]!r:.200}")
    grades = {_grade(match[1]) for match in found if match is not None}
    if len(grades) > 1:
        return Reading(None, f"it has several grades: {', '.join(sorted(grades))}")
    grade = _grade(last[1])
    if grade not in GRADES_OF[name]:
        return Reading(None, f"{grade} is none of the grades that it was offered")
    return Reading(grade)


def shortened(text: str, limit: int = MAX_CHARS) -> str:
    """`text`, without its middle where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _grade(word: str) -> Grade:
    grades: Mapping[str, Grade] = {"correct": "correct", "incorrect": "incorrect"}
    return grades.get(word.lower(), "not_attempted")


def _fence(submission: Submission) -> str:
    whole = json.dumps(submission).encode()
    return hashlib.sha256(whole).hexdigest()[:_FENCE_DIGITS]


def _harmless(text: str) -> str:
    """Without control tokens, and without halves of characters, which no server takes."""
    return without_control_tokens(text).encode("utf-8", "replace").decode("utf-8")


def last_message(texts: Sequence[str]) -> str:
    """The last of `texts` that says something outside of its thoughts, without these; or ""."""
    said = (re.sub(r"<think>.*?(?:</think>|$)", "", one, flags=re.DOTALL) for one in texts[::-1])
    return next((one.strip() for one in said if one.strip()), "")

r"""Grades final answers of mathematics: extraction, cheap exact comparison, and sympy in a process.

`grade_text` takes what a policy wrote, `grade_answer` its bare answer. Both return a typed outcome.
What can be decided by reading, exact arithmetic or high precision is decided here, in well under a
millisecond; what only math-verify and sympy can read (sums, integrals, limits, ...) goes to a
worker process with a hard deadline (`agentrl.graders.workers`). No signal is used: it works in
any thread, asyncio task or Ray actor.

Answers are compared by type; docs/envs/math.md lists the rules. Not understood: families of
solutions (`\frac{\pi}{2} + k\pi`) other than by their formula, and golds that are sentences, which
only equal themselves.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple, TypeAlias

from agentrl.core.errors import DataError
from agentrl.graders.math_compare import Comparison
from agentrl.graders.math_extract import Marker, extract_answer
from agentrl.graders.math_number import RefusedError, UndecidedError, constant, symbols
from agentrl.graders.math_text import MAX_CHARS, Unit, compact, measured, plain, unit_of
from agentrl.graders.math_tokens import UnreadableError
from agentrl.graders.math_tree import (
    Items,
    Matrix,
    Node,
    Relation,
    Span,
    Union,
    Value,
    parse,
    sign_count,
)
from agentrl.graders.workers import Reply, WorkerPool

DEADLINE: Final = 1.0
"""Seconds that a worker has for one pair."""

_REMEMBERED = 10_000
_SYMBOLIC_CHARS = 600
_HEAVY = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|limsup|liminf|gcd|lcm|min|max|det|deg|begin|bmod|pmod|mod"
    r"|equiv|setminus|cap|operatorname|sup|inf|partial|nabla|log|prime)"
    r"(?![a-zA-Z])"
)
_NO_CHAIN = re.compile(r"[<>,;]|\\(?:le|ge|ne|in|begin|text)(?![a-zA-Z])")
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-z]{3,}(?![a-zA-Z])")
_CHOICE = re.compile(r"\(?([A-J])\)?")
_CHOSEN = re.compile(
    r"(?:the\s+)?(?:option|choice|answer)?\s*(?:is)?\s*[(\[]?([A-Ja-j])(?:[)\]]|[.:]|\s|$).*",
    re.DOTALL | re.IGNORECASE,
)
_TOWER = re.compile(r"\^\s*\{?[^{}^]*\^\s*\{?[^{}^]*\^|\d{5,}\s*!|!\s*\)*\s*!|\^\s*\{?\s*\d{6,}")


class Outcome(StrEnum):
    """What came of a grading."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The text holds no final answer."""
    UNGRADED = "ungraded"
    """The grader failed: never to be counted as wrong."""


class Grade(NamedTuple):
    """An outcome; `reason` says why it is ungraded or refused, `answer` what was read."""

    outcome: Outcome
    reason: str = ""
    answer: str | None = None

    @property
    def correct(self) -> bool:
        """True for a right answer."""
        return self.outcome is Outcome.CORRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    r"""A right answer and how it is met.

    `several` reads commas as separating answers in any order (OlympiadBench's
    `is_multiple_answer`); `error` is an absolute tolerance (its `error`), `unit` the unit of a gold
    written without one. `relative` is the tolerance for numbers written with decimals; whole golds
    are met to it absolutely, and exact numbers (`1/3`, `\sqrt 2`, `2^{99}`) by none.
    """

    answer: str
    several: bool = False
    error: float | None = None
    unit: str = ""
    relative: float = 1e-6


GoldLike: TypeAlias = Gold | str


def grade_text(
    text: str,
    gold: GoldLike,
    *,
    accept: Sequence[Marker] = ("boxed",),
    deadline: float = DEADLINE,
) -> Grade:
    """The grade of the final answer in `text`, which is to hold the policy's own words only.

    `accept` are the markers under which an answer counts (see `extract_answer`).
    """
    answer = extract_answer(text, accept)
    if answer is None:
        return Grade(Outcome.NO_ANSWER)
    return grade_answer(answer, gold, deadline=deadline)


def grade_answer(answer: str, gold: GoldLike, *, deadline: float = DEADLINE) -> Grade:
    """The grade of a bare answer. Blocks for up to `deadline` seconds where a worker is needed."""
    gold = _gold(gold)
    known = _without_worker(answer, gold)
    if known is not None:
        return known
    reply = pool().call(_request(answer, gold), deadline=deadline)
    return _graded(reply, answer, gold)


async def grade_text_async(
    text: str,
    gold: GoldLike,
    *,
    accept: Sequence[Marker] = ("boxed",),
    deadline: float = DEADLINE,
) -> Grade:
    """As `grade_text`; other tasks go on while a worker is at it."""
    answer = extract_answer(text, accept)
    if answer is None:
        return Grade(Outcome.NO_ANSWER)
    gold = _gold(gold)
    known = _without_worker(answer, gold)
    if known is not None:
        return known
    submitted = pool().submit(_request(answer, gold), deadline=deadline)
    return _graded(await asyncio.wrap_future(submitted), answer, gold)


def _without_worker(answer: str, gold: Gold) -> Grade | None:
    """The grade where no worker is needed for it, or where one has failed at this pair before."""
    quick = grade_quickly(answer, gold)
    if quick is not None:
        return quick
    remembered = _failures.get((gold, answer))
    return Grade(Outcome.UNGRADED, remembered, answer) if remembered else None


def grade_quickly(answer: str, gold: GoldLike) -> Grade | None:
    """The grade where no worker is needed for it, else None.

    Raises:
        SetupError: an irrational number, without the package that computes it.
    """
    gold = _gold(gold)
    if answer.strip() == gold.answer.strip():
        return Grade(Outcome.CORRECT, answer=answer)
    if len(answer) > MAX_CHARS:
        reason = f"refused: {len(answer)} characters, more than {MAX_CHARS}"
        return Grade(Outcome.WRONG, reason, answer)
    prepared = _prepared(gold)
    try:
        verdict = _verdict(answer, gold, prepared)
    except (RefusedError, RecursionError) as error:
        if not prepared.too_large:
            # A policy's own doing: as ungraded it could hide its misses behind towers of powers.
            return Grade(Outcome.WRONG, f"refused: {error or 'nested too deeply'}", answer)
        return Grade(Outcome.UNGRADED, f"the gold answer is too large: {error}", answer)
    if verdict is not None:
        return Grade(Outcome.CORRECT if verdict else Outcome.WRONG, answer=answer)
    if max(len(answer), len(gold.answer)) > _SYMBOLIC_CHARS or _TOWER.search(plain(answer)):
        return Grade(Outcome.WRONG, "refused: too long or too high for sympy", answer)
    return None


@lru_cache(maxsize=1)
def _pool_of(process: int) -> WorkerPool:
    return WorkerPool("agentrl.graders.math_symbolic", package="math_verify", extra="math")


def pool() -> WorkerPool:
    """The workers of this process, started when they are first asked for anything."""
    return _pool_of(os.getpid())


# Pairs whose grading failed: the same pair again would cost its deadline again.
_failures: OrderedDict[tuple[Gold, str], str] = OrderedDict()


def _graded(reply: Reply, answer: str, gold: Gold) -> Grade:
    reason = reply.failure or ("the gold answer cannot be read" if "unread" in reply.value else "")
    if not reason:
        right = bool(reply.value["verdict"])
        return Grade(Outcome.CORRECT if right else Outcome.WRONG, answer=answer)
    _failures[gold, answer] = reason
    while len(_failures) > _REMEMBERED:
        _failures.popitem(last=False)
    return Grade(Outcome.UNGRADED, reason, answer)


def _request(answer: str, gold: Gold) -> Mapping[str, str]:
    return {"gold": plain(gold.answer), "answer": plain(answer)}


def _gold(gold: GoldLike) -> Gold:
    return Gold(answer=gold) if isinstance(gold, str) else gold


# The quick comparison


class _Reading(NamedTuple):
    value: Value
    unit: Unit | None


class _Prepared(NamedTuple):
    """What is known of a gold before any answer; cached."""

    compact: str
    choice: str
    readings: tuple[_Reading, ...]
    sentence: bool
    too_large: bool


@lru_cache(maxsize=16_384)
def _prepared(gold: Gold) -> _Prepared:
    said = plain(gold.answer)
    if not said:
        raise DataError(f"a gold answer is empty: {gold.answer!r}")
    choice = _CHOICE.fullmatch(said)
    readings = _readings(said, thousands=not gold.several)
    if gold.unit and (unit := unit_of(gold.unit)) is not None:
        readings = tuple(one._replace(unit=one.unit or unit) for one in readings)
    sentence = not readings and (
        not re.search(r"[\d\\=+*/^<>|{}]", said) or len(re.findall(r"\b[a-z]{2,}\b", said)) > 3
    )
    large = any(_is_too_large(one.value) for one in readings)
    return _Prepared(compact(gold.answer), choice[1] if choice else "", readings, sentence, large)


def _readings(said: str, *, thousands: bool) -> tuple[_Reading, ...]:
    """What a plain text can mean: without its unit, and as it stands."""
    found: list[_Reading] = []
    value, unit = measured(said)
    for text, its_unit in ((value, unit), (said, None))[: 1 if unit is None else 2]:
        try:
            found.append(_Reading(_value(text, thousands), its_unit))
        except (UnreadableError, ZeroDivisionError):
            continue
    steps, equals, last = said.rpartition("=")
    if not found and equals and not _NO_CHAIN.search(steps):
        # What a chain of steps comes to, though not all of them can be read.
        return _readings(last.strip(), thousands=thousands)
    return tuple(found)


@lru_cache(maxsize=4096)
def _value(text: str, thousands: bool) -> Value:
    signs = sign_count(text) if "\\" in text or "+" in text else 1
    if signs == 1:
        return parse(text, thousands=thousands)
    found = [parse(text, thousands=thousands, signs=choice) for choice in range(signs)]
    items: list[Value] = []
    for one in found:
        listed = isinstance(one, Items) and one.kind in (",", "and", "{}")
        items += one.items if isinstance(one, Items) and listed else (one,)
    return Items(",", tuple(items))


def _is_too_large(value: Value) -> bool:
    if isinstance(value, (Items, Span, Union, Relation, Matrix)) or symbols(value):
        return False
    try:
        constant(value)
    except RefusedError:
        return True
    except UndecidedError:
        return False
    return False


def _verdict(answer: str, gold: Gold, prepared: _Prepared) -> bool | None:
    """Right, wrong, or None where only a worker can tell."""
    if compact(answer) == prepared.compact:
        return True
    said = plain(answer)
    if prepared.choice:
        chosen = _CHOSEN.fullmatch(said)
        return chosen is not None and chosen[1].upper() == prepared.choice
    if said.casefold() == plain(gold.answer).casefold() and said.isalpha():
        return True
    if prepared.sentence:
        return _words(said) == _words(gold.answer)
    if not prepared.readings:
        return None
    undecided = False
    for thousands in (False, True) if gold.several else (True, False):
        readings = _readings(said, thousands=thousands)
        for one, two in product(prepared.readings, readings):
            try:
                if _same(one, two, gold):
                    return True
            except UndecidedError:
                undecided = True
        if not readings and _HEAVY.search(said) and len(_PROSE.findall(said)) < 4:
            undecided = True
        if "," not in said:
            break
    return None if undecided else False


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", plain(text).casefold()))


def _same(gold: _Reading, answer: _Reading, how: Gold) -> bool:
    """Whether the values are equal, in the units that they are given in."""
    for scale in _scales(gold, answer):
        comparison = Comparison(relative=how.relative, absolute=how.error, scale=scale)
        if comparison.same(gold.value, answer.value):
            return True
    return False


def _scales(gold: _Reading, answer: _Reading) -> tuple[Fraction, ...]:
    """What the answer's number may be multiplied with to stand in the gold's unit."""
    one, two = gold.unit, answer.unit
    if one is not None and two is not None:
        if one.dimension == two.dimension:
            return (two.factor / one.factor,)
        return ()
    if two is not None and two.is_percent:
        whole = _is_whole(gold.value)
        return (Fraction(1, 100), Fraction(1)) if whole else (Fraction(1, 100),)
    if one is not None and one.is_percent:
        return (Fraction(1), Fraction(100))
    return (Fraction(1),)


def _is_whole(value: Node | Value) -> bool:
    return isinstance(value, tuple) and bool(value[0] == "n" and value[1].denominator == 1)

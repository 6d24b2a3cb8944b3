"""Problems from files or a hub, in the formats of the usual data sets, told apart by their keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from agentrl.core.datasets import Row, read_rows, shown
from agentrl.core.errors import DataError
from agentrl.graders.math_extract import extract_answer
from agentrl.graders.math_number import exact
from agentrl.graders.math_tokens import UnreadableError
from agentrl.graders.math_tree import parse, scalar

from .records import Problem

DatasetName: TypeAlias = Literal["auto", "gsm8k", "math", "olympiadbench", "svamp", "answers"]
"""`math` is MATH, MATH-500 and all with worked solutions that end in a box; `answers` is AIME, AMC,
Minerva and all that give problem and answer alone."""

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_IDS = ("id", "ID", "unique_id", "Id")
_PROBLEMS = ("problem", "question", "Problem", "Question")
_ANSWERS = ("answer", "Answer", "expected_answer", "final_answer")


def read_problems(source: str, *, dataset: DatasetName = "auto", split: str) -> list[Problem]:
    """The problems of `source` (see `agentrl.core.datasets.read_rows`), in its order.

    Raises:
        DataError: a row of no known format, or without what its format needs; names the place.
        SetupError: a hub that cannot be read.
    """
    found: list[Problem] = []
    places: dict[str, str] = {}
    for number, row in enumerate(read_rows(source, name="data set of problems")):
        id_ = next((row.id(key) for key in _IDS if key in row.data), f"{split}-{number}")
        if id_ in places:
            raise DataError(f"{row.place}: the id {id_!r} is that of {places[id_]} too")
        places[id_] = row.place
        format_ = _format(row) if dataset == "auto" else dataset
        found.append(_READERS[format_](row, id_))
    return found


def _format(row: Row) -> DatasetName:
    keys = row.data.keys()
    if {"question", "final_answer"} <= keys:
        return "olympiadbench"
    if {"Body", "Question", "Answer"} <= keys:
        return "svamp"
    if {"question", "answer"} <= keys and "####" in str(row.data["answer"]):
        return "gsm8k"
    if {"problem", "solution"} <= keys:
        return "math"
    if any(key in keys for key in _PROBLEMS) and any(key in keys for key in _ANSWERS):
        return "answers"
    raise DataError(
        f"{row.place}: keys {', '.join(keys)} are of no known data set: name a format with dataset="
        "(gsm8k, math, olympiadbench, svamp, answers), or give rows with problem and answer"
    )


def _gsm8k(row: Row, id_: str) -> Problem:
    """https://github.com/openai/grade-school-math; the calculator's marks are left out."""
    worked, mark, answer = _CALCULATOR.sub("", row.text("answer")).rpartition("####")
    if not mark or not answer.strip():
        raise DataError(f"{row.place}: 'answer' does not end in '#### <number>'")
    return Problem(id_, row.text("question"), answer.strip(), worked=worked.strip())


def _math(row: Row, id_: str) -> Problem:
    """MATH (arXiv:2103.03874): the answer is the last box of the solution, or its own field."""
    worked = row.text("solution")
    boxed = extract_answer(worked, ("boxed",))
    if boxed is None and "answer" not in row.data:
        raise DataError(
            f"{row.place}: the solution has no \\boxed answer, and there is no 'answer'"
        )
    answer = _answer(row, "answer") if "answer" in row.data else boxed or ""
    return Problem(id_, row.text("problem"), answer, worked=worked, result=boxed or "")


def _olympiadbench(row: Row, id_: str) -> Problem:
    """OlympiadBench (arXiv:2402.14008), its questions that need no image."""
    answers = row.texts("final_answer")
    if len(answers) != 1:
        raise DataError(f"{row.place}: 'final_answer' must have one entry, got {len(answers)}")
    context = row.data.get("context")
    text = row.text("question")
    worked = row.data.get("solution") or [""]
    error = row.data.get("error")
    unit = row.data.get("unit")
    return Problem(
        id_,
        f"{context}\n\n{text}" if isinstance(context, str) and context.strip() else text,
        answers[0],
        worked=str(worked[0] if isinstance(worked, list) else worked),
        several=bool(row.data.get("is_multiple_answer")),
        error=None if error in (None, "") else _tolerance(row, error),
        unit=unit if isinstance(unit, str) else "",
    )


def _tolerance(row: Row, error: object) -> float:
    try:
        # In some rows it is one tolerance for each of several answers, all the same.
        return max(float(one) for one in str(error).split(","))
    except ValueError as wrong:
        raise DataError(f"{row.place}: 'error' must be a number, got {shown(error)}") from wrong


def _svamp(row: Row, id_: str) -> Problem:
    """SVAMP (arXiv:2103.07191); its solution is its equation, whatever that comes to."""
    body = row.text("Body", empty=True).strip()
    separator = "" if not body or body.endswith((".", "?", "!", ",")) else ","
    question = row.text("Question")
    equation = row.data.get("Equation")
    said = str(equation).strip() if equation is not None else ""
    value = _value_of(said)
    return Problem(
        id_,
        f"{body}{separator} {question}".strip(),
        _answer(row, "Answer"),
        worked=f"{said} = {_written(value)}" if value is not None else "",
        result="" if value is None else _written(value),
        code=f"print({said})" if value is not None else "",
    )


def _answers(row: Row, id_: str) -> Problem:
    problem = next((key for key in _PROBLEMS if key in row.data), _PROBLEMS[0])
    answer = next((key for key in _ANSWERS if key in row.data), _ANSWERS[0])
    worked = next((row.data[key] for key in ("solution", "Solution") if key in row.data), "")
    return Problem(id_, row.text(problem), _answer(row, answer), worked=str(worked or ""))


def _answer(row: Row, key: str) -> str:
    """An answer given as text or as a number."""
    value = row.value(key)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{row.place}: {key!r} must be a text or a number, got {shown(value)}")
    if isinstance(value, str):
        return row.text(key).strip()
    return _written(Fraction(repr(value)))


def _value_of(equation: str) -> Fraction | None:
    """What the four operations of `equation` come to."""
    if not re.fullmatch(r"[-+*/(). \d]+", equation):
        return None
    try:
        return exact(scalar(parse(equation)))
    except UnreadableError:
        return None


def _written(value: Fraction) -> str:
    """A whole number, a decimal where it ends, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = float(value)
    return str(decimal) if Fraction(str(decimal)) == value else str(value)


_READERS: Final[Mapping[DatasetName, Callable[[Row, str], Problem]]] = {
    "gsm8k": _gsm8k,
    "math": _math,
    "olympiadbench": _olympiadbench,
    "svamp": _svamp,
    "answers": _answers,
}

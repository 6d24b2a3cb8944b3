"""Corpora and question files, checked row by row; questions also of a hub (`hub:owner/name@split`).

Rows of a corpus: `{"id", "title", "text"}`, Search-R1's and FlashRAG's `{"id", "contents"}` with
`"Title"` on the first line of the contents, or facts `{"id", "subject", "relation", "object"}`.
Rows of a question file: `{"id", "question", "answers"}` with `support` or `facts` (ids of the
passages that lead to the answer) and `hops` if known, or a row as a benchmark's own release has
it (`_QUESTION_KINDS`). Other keys are ignored. One file holds one kind of row. Questions that show
a picture or a file are left out: the policy could not see it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from agentrl.core.datasets import Row, read_rows, shown
from agentrl.core.errors import DataError

from .records import Passage, Question

_Record = TypeVar("_Record", Passage, Question)


def read_corpus(path: str | Path) -> list[Passage]:
    """The passages of a corpus, in file order.

    Raises:
        DataError: naming file, line and what was found there.
    """
    return _read(path, "corpus", _CORPUS_KINDS)


def read_questions(
    path: str | Path, *, known: Container[str] | None = None, split: str = "row"
) -> list[Question]:
    """The questions of a file, in file order; those without an id are named `{split}-{number}`.

    `known` holds the ids of the corpus; a question whose `support` is not in it is an error.

    Raises:
        DataError: naming file, line and what was found there.
    """
    return _read(path, "question file", _QUESTION_KINDS, known=known, split=split)


def split_contents(contents: str) -> tuple[str, str]:
    """Title and text of contents whose first line is the title, in quotes or not.

    Contents of one line have no title.
    """
    first, newline, rest = contents.partition("\n")
    if not newline:
        return "", contents.strip()
    title = first.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, rest.strip()


def join_contents(title: str, text: str) -> str:
    """The inverse of `split_contents`."""
    return f'"{title}"\n{text}'


def fact_text(subject: str, relation: str, value: str) -> str:
    """A fact worded as a sentence."""
    return f"The {relation} of {subject} is {value}."


def _passage(line: Row) -> Passage:
    return Passage(line.id(), line.text("title", empty=True), line.text("text"))


def _contents_passage(line: Row) -> Passage:
    title, text = split_contents(line.text("contents"))
    return Passage(line.id(), title, text)


def _fact_passage(line: Row) -> Passage:
    subject, relation, value = line.text("subject"), line.text("relation"), line.text("object")
    return Passage(line.id(), subject, fact_text(subject, relation, value))


def _question(line: Row, answers: str, text: str = "question") -> Question:
    """A question whose accepted answers stand under the key `answers`, the first of them gold."""
    given = _answers(line, answers)
    # A blank one would be matched by an empty answer.
    found = tuple(answer for answer in given if answer.strip())
    if not found:
        raise DataError(f"{line.place}: {answers!r} has no answer, got {shown(list(given))}")
    key = next((key for key in ("support", "facts") if key in line.data), None)
    support = line.texts(key) if key else ()
    hops = line.count("hops") if "hops" in line.data else len(support)
    return Question(line.id(), line.text(text), found, hops, support, ())


def _answers(line: Row, key: str) -> tuple[str, ...]:
    """What stands under `key`: a list of texts; under a singular key also one text or an object.

    The object is TriviaQA's, a value and its aliases.
    """
    value = line.value(key)
    if key.endswith("answers"):
        return line.texts(key)
    if isinstance(value, str):
        return (line.text(key),)
    if isinstance(value, Mapping):
        inner = Row(line.place, value)
        return tuple(dict.fromkeys((inner.text("value"), *inner.texts("aliases"))))
    return line.texts(key)


def _popqa(line: Row) -> Question:
    """The answers are a list, which the release has as JSON in a text."""
    key = "possible_answers"
    found = line.value(key)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError as error:
            raise DataError(f"{line.place}: {key!r} holds no JSON list: {error}") from error
    return _question(Row(line.place, {**line.data, key: found}), key)


def _musique(line: Row) -> Question:
    question = _question(line, "answer")
    aliases = (one for one in line.texts("answer_aliases") if one.strip())
    answers = (*question.answers, *aliases)
    return question._replace(answers=tuple(dict.fromkeys(answers)))


def _gaia(line: Row) -> Question | None:
    if str(line.data.get("file_name") or "").strip():
        return None
    if line.text("Final answer").strip() == "?":
        raise DataError(
            f"{line.place}: 'Final answer' is '?': the answers of this split are not published"
        )
    return _question(line, "Final answer", "Question")


def _hle(line: Row) -> Question | None:
    return None if line.data.get("image") else _question(line, "answer")


_Read = Callable[[Row], _Record | None]
_Kinds = Mapping[tuple[str, ...], _Read[_Record]]
_CORPUS_KINDS: _Kinds[Passage] = {
    ("id", "title", "text"): _passage,
    ("id", "contents"): _contents_passage,
    ("id", "subject", "relation", "object"): _fact_passage,
}
_QUESTION_KINDS: _Kinds[Question] = {
    ("question", "answers"): lambda line: _question(line, "answers"),
    # FlashRAG and Search-R1.
    ("question", "golden_answers"): lambda line: _question(line, "golden_answers"),
    # PopQA's own release.
    ("question", "possible_answers"): _popqa,
    ("question", "answer", "answer_aliases"): _musique,
    # Humanity's Last Exam.
    ("question", "image", "answer"): _hle,
    # NQ-open, TriviaQA, HotpotQA, 2WikiMultihopQA, WebWalkerQA, and ARPO's evaluation sets.
    ("question", "answer"): lambda line: _question(line, "answer"),
    # SimpleQA.
    ("problem", "answer"): lambda line: _question(line, "answer", "problem"),
    # Bamboogle.
    ("Question", "Answer"): lambda line: _question(line, "Answer", "Question"),
    ("Question", "Final answer"): _gaia,
}
_IDS = ("id", "_id", "question_id", "task_id", "ID")
"""Where a question's id may stand."""


def _read(
    path: str | Path,
    name: str,
    kinds: _Kinds[_Record],
    *,
    known: Container[str] | None = None,
    split: str = "",
) -> list[_Record]:
    records: list[_Record] = []
    places: dict[str, str] = {}
    keys: tuple[str, ...] | None = None
    for number, line in enumerate(read_rows(path, name=name)):
        keys = keys or _kind(line, name, kinds)
        _check_keys(line, name, keys)
        record = kinds[keys](_with_id(line, f"{split}-{number}") if split else line)
        if record is None:
            continue
        if record.id in places:
            raise DataError(
                f"{line.place}: id {record.id!r} is already that of {places[record.id]}"
            )
        places[record.id] = f"line {line.place.rpartition(':')[2]}"
        if isinstance(record, Question) and known is not None:
            for id_ in record.support:
                if id_ not in known:
                    raise DataError(f"{line.place}: support {id_!r} is not an id of the corpus")
        records.append(record)
    if not records:
        raise DataError(f"{path}: the {name} is empty")
    return records


def _check_keys(line: Row, name: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in line.data:
            close = get_close_matches(key, line.data, n=1)
            hint = f" It has {close[0]!r} instead." if close else ""
            raise DataError(
                f"{line.place}: a row of this {name} must have {_listed(keys)}, "
                f"but {key!r} is missing.{hint}"
            )


def _with_id(line: Row, otherwise: str) -> Row:
    """The row with its id under "id"."""
    key = next((key for key in _IDS if key in line.data), None)
    if key == "id":
        return line
    id_ = otherwise if key is None else line.id(key)
    return Row(line.place, {**line.data, "id": id_})


def _kind(line: Row, name: str, kinds: _Kinds[_Record]) -> tuple[str, ...]:
    for keys in kinds:
        if line.data.keys() >= set(keys):
            return keys
    choices = " or ".join(_listed(keys) for keys in kinds)
    found = _listed(list(line.data)) if line.data else "none"
    raise DataError(f"{line.place}: a row of a {name} must have the keys {choices}, got {found}")


def _listed(keys: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(key) for key in keys)

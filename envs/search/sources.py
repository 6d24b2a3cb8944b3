"""Corpora and question files in JSON lines, plain or gzipped, checked row by row.

Rows of a corpus: `{"id", "title", "text"}`, Search-R1's and FlashRAG's `{"id", "contents"}` with
`"Title"` on the first line of the contents, or facts `{"id", "subject", "relation", "object"}`.
Rows of a question file: `{"id", "question", "answers"}` with `support` or `facts` (ids of the
passages that lead to the answer) and `hops` if known, or FlashRAG's `{"id", "question",
"golden_answers"}`. Other keys are ignored. One file holds one kind of row.
"""

from __future__ import annotations

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
    return _read(Path(path), "corpus", _CORPUS_KINDS)


def read_questions(path: str | Path, *, known: Container[str] | None = None) -> list[Question]:
    """The questions of a file, in file order.

    `known` holds the ids of the corpus; a question whose `support` is not in it is an error.

    Raises:
        DataError: naming file, line and what was found there.
    """
    return _read(Path(path), "question file", _QUESTION_KINDS, known=known)


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


def _question(line: Row, answers_key: str = "answers") -> Question:
    answers = line.texts(answers_key)
    if not any(answer.strip() for answer in answers):
        raise DataError(f"{line.place}: {answers_key!r} has no answer, got {shown(list(answers))}")
    key = next((key for key in ("support", "facts") if key in line.data), None)
    support = line.texts(key) if key else ()
    hops = line.count("hops") if "hops" in line.data else len(support)
    return Question(line.id(), line.text("question"), answers, hops, support, ())


def _golden_question(line: Row) -> Question:
    return _question(line, "golden_answers")


_Kinds = Mapping[tuple[str, ...], Callable[[Row], _Record]]
_CORPUS_KINDS: _Kinds[Passage] = {
    ("id", "title", "text"): _passage,
    ("id", "contents"): _contents_passage,
    ("id", "subject", "relation", "object"): _fact_passage,
}
_QUESTION_KINDS: _Kinds[Question] = {
    ("id", "question", "answers"): _question,
    ("id", "question", "golden_answers"): _golden_question,
}


def _read(
    path: Path, name: str, kinds: _Kinds[_Record], *, known: Container[str] | None = None
) -> list[_Record]:
    records: list[_Record] = []
    places: dict[str, str] = {}
    keys: tuple[str, ...] | None = None
    for line in read_rows(path, name=name):
        keys = keys or _kind(line, name, kinds)
        for key in keys:
            if key not in line.data:
                close = get_close_matches(key, line.data, n=1)
                hint = f" It has {close[0]!r} instead." if close else ""
                raise DataError(
                    f"{line.place}: a row of this {name} must have {_listed(keys)}, "
                    f"but {key!r} is missing.{hint}"
                )
        record = kinds[keys](line)
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


def _kind(line: Row, name: str, kinds: _Kinds[_Record]) -> tuple[str, ...]:
    for keys in kinds:
        if line.data.keys() >= set(keys):
            return keys
    choices = " or ".join(_listed(keys) for keys in kinds)
    found = _listed(list(line.data)) if line.data else "none"
    raise DataError(f"{line.place}: a row of a {name} must have the keys {choices}, got {found}")


def _listed(keys: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(key) for key in keys)

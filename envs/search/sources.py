"""Corpora and question files in JSON lines, plain or gzipped, checked row by row.

Rows of a corpus: `{"id", "title", "text"}`, Search-R1's and FlashRAG's `{"id", "contents"}` with
`"Title"` on the first line of the contents, or facts `{"id", "subject", "relation", "object"}`.
Rows of a question file: `{"id", "question", "answers"}` with `support` or `facts` (ids of the
passages that lead to the answer) and `hops` if known, or FlashRAG's `{"id", "question",
"golden_answers"}`. Other keys are ignored. One file holds one kind of row.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

from agentrl.core.errors import DataError

from .records import Passage, Question

_GZIP_MAGIC = b"\x1f\x8b"
_Row = Mapping[str, object]
_Record = TypeVar("_Record", Passage, Question)


class _Line(NamedTuple):
    """A row of a file, with the place that error messages name."""

    place: str
    row: _Row

    def text(self, key: str, *, empty: bool = False) -> str:
        value = self.row[key]
        if not isinstance(value, str):
            raise DataError(f"{self.place}: {key!r} must be text, got {_shown(value)}")
        if not value.strip() and not empty:
            raise DataError(f"{self.place}: {key!r} is empty")
        return value

    def id(self) -> str:
        value = self.row["id"]
        return str(value) if type(value) is int else self.text("id")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.row[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"{self.place}: {key!r} must be a list of texts, got {_shown(value)}")
        return tuple(value)

    def count(self, key: str) -> int:
        value = self.row[key]
        if type(value) is not int or value < 0:
            raise DataError(f"{self.place}: {key!r} must be a whole number, got {_shown(value)}")
        return value


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


def _passage(line: _Line) -> Passage:
    return Passage(line.id(), line.text("title", empty=True), line.text("text"))


def _contents_passage(line: _Line) -> Passage:
    title, text = split_contents(line.text("contents"))
    return Passage(line.id(), title, text)


def _fact_passage(line: _Line) -> Passage:
    subject, relation, value = line.text("subject"), line.text("relation"), line.text("object")
    return Passage(line.id(), subject, fact_text(subject, relation, value))


def _question(line: _Line, answers_key: str = "answers") -> Question:
    answers = line.texts(answers_key)
    if not any(answer.strip() for answer in answers):
        raise DataError(f"{line.place}: {answers_key!r} has no answer, got {_shown(list(answers))}")
    key = next((key for key in ("support", "facts") if key in line.row), None)
    support = line.texts(key) if key else ()
    hops = line.count("hops") if "hops" in line.row else len(support)
    return Question(line.id(), line.text("question"), answers, hops, support, ())


def _golden_question(line: _Line) -> Question:
    return _question(line, "golden_answers")


_Kinds = Mapping[tuple[str, ...], Callable[[_Line], _Record]]
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
    for line in _lines(path, name):
        keys = keys or _kind(line, name, kinds)
        for key in keys:
            if key not in line.row:
                close = get_close_matches(key, line.row, n=1)
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


def _kind(line: _Line, name: str, kinds: _Kinds[_Record]) -> tuple[str, ...]:
    for keys in kinds:
        if line.row.keys() >= set(keys):
            return keys
    choices = " or ".join(_listed(keys) for keys in kinds)
    found = _listed(list(line.row)) if line.row else "none"
    raise DataError(f"{line.place}: a row of a {name} must have the keys {choices}, got {found}")


def _lines(path: Path, name: str) -> Iterator[_Line]:
    number = 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    place = f"{path}:{number}"
                    yield _Line(place, _row(raw, place))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such {name}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a {name} must be a file, this is a folder") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}:{number + 1}: the gzip file is damaged or cut short") from error


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path)) if zipped else path.open("rb")


def _row(raw: bytes, place: str) -> _Row:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 at byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        # Some of Python's messages end in "at" themselves.
        said = error.msg.removesuffix(" at")
        raise DataError(f"{place}: not JSON: {said} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: a row must be a JSON object, got {_shown(row)}")
    return row


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(keys: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(key) for key in keys)

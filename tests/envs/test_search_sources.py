"""Corpora and question files: three formats of each, and every mistake with its message."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.datasets import Row
from agentrl.core.errors import DataError
from agentrl.envs.search.records import Passage, Question
from agentrl.envs.search.sources import (
    join_contents,
    read_corpus,
    read_questions,
    split_contents,
)


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_passages_with_title_and_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.jsonl",
        {"id": "a", "title": "", "text": "Été"},
        "",
        '{"id": 7, "title": "T", "text": "x", "more": 1}',
    )
    assert read_corpus(path) == [Passage("a", "", "Été"), Passage("7", "T", "x")]


def test_passages_as_search_r1_and_flashrag_have_them(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.jsonl",
        {"id": "0", "contents": '"Paris"\nParis is a city.\nIt is large.'},
        {"id": "1", "contents": "Rome\nRome is a city."},
        {"id": "2", "contents": "A text alone."},
    )
    assert read_corpus(path) == [
        Passage("0", "Paris", "Paris is a city.\nIt is large."),
        Passage("1", "Rome", "Rome is a city."),
        Passage("2", "", "A text alone."),
    ]


def test_facts_are_worded_as_passages(tmp_path: Path) -> None:
    fact = {
        "id": "f-0",
        "subject": "Solaris",
        "relation": "director",
        "object": "Tarkovsky",
        "passage": None,
    }
    path = write(tmp_path / "facts.jsonl", fact)
    assert read_corpus(path) == [Passage("f-0", "Solaris", "The director of Solaris is Tarkovsky.")]


def test_questions_of_three_formats(tmp_path: Path) -> None:
    multihop = {
        "id": "m",
        "question": "Who?",
        "answers": ["A", "B"],
        "hops": 3,
        "support": ["x", "y"],
        "type": "bridge",
    }
    assert read_questions(write(tmp_path / "m.jsonl", multihop)) == [
        Question("m", "Who?", ("A", "B"), 3, ("x", "y"), ())
    ]
    facts = {
        "id": "f",
        "question": "Who?",
        "answers": ["A"],
        "facts": ["f-1"],
        "start": "S",
        "path": ["r"],
    }
    assert read_questions(write(tmp_path / "f.jsonl", facts)) == [
        Question("f", "Who?", ("A",), 1, ("f-1",), ())
    ]
    flashrag = {"id": "test_0", "question": "who", "golden_answers": ["A"], "metadata": {}}
    assert read_questions(write(tmp_path / "r.jsonl", flashrag)) == [
        Question("test_0", "who", ("A",), 0, (), ())
    ]


RELEASES = {
    "nq-open": (
        {"question": "when", "answer": ["1972", "December 1972"]},
        ("eval-0", "when", ("1972", "December 1972")),
    ),
    "popqa": (
        {"id": 42, "subj": "S", "question": "Who?", "possible_answers": '["A", "B"]'},
        ("42", "Who?", ("A", "B")),
    ),
    "triviaqa": (
        {
            "question": "Who?",
            "question_id": "tc_1",
            "answer": {"value": "A", "aliases": ["B", "A"], "normalized_aliases": ["a", "b"]},
        },
        ("tc_1", "Who?", ("A", "B")),
    ),
    "hotpotqa": (
        {"_id": "5a", "question": "Who?", "answer": "yes", "supporting_facts": [["T", 0]]},
        ("5a", "Who?", ("yes",)),
    ),
    "musique": (
        {"id": "2hop__1", "question": "Who?", "answer": "A", "answer_aliases": ["B", " ", "A"]},
        ("2hop__1", "Who?", ("A", "B")),
    ),
    "bamboogle": ({"Question": "Who?", "Answer": "A"}, ("eval-0", "Who?", ("A",))),
    "flashrag": (
        {"id": "dev_0", "question": "Who?", "golden_answers": ["A"], "metadata": {"type": "x"}},
        ("dev_0", "Who?", ("A",)),
    ),
    "simpleqa": (
        {"metadata": "{'topic': 'Art'}", "problem": "Who?", "answer": "A"},
        ("eval-0", "Who?", ("A",)),
    ),
    "webwalkerqa": (
        {"question": "Who?", "answer": "A", "root_url": "https://x.org", "info": {"hop": "multi"}},
        ("eval-0", "Who?", ("A",)),
    ),
    "gaia": (
        {"task_id": "g", "Question": "Who?", "Level": "1", "Final answer": "A", "file_name": ""},
        ("g", "Who?", ("A",)),
    ),
    "hle": (
        {"id": "h", "question": "Who?", "image": "", "answer": "A", "answer_type": "exactMatch"},
        ("h", "Who?", ("A",)),
    ),
}


@pytest.mark.parametrize("release", RELEASES)
def test_questions_as_their_own_releases_have_them(release: str, tmp_path: Path) -> None:
    row, expected = RELEASES[release]
    path = write(tmp_path / "r.jsonl", row)
    assert read_questions(path, split="eval") == [Question(*expected, 0, (), ())]


def test_questions_that_show_a_file_or_picture_are_left_out(tmp_path: Path) -> None:
    gaia = {"task_id": "a", "Question": "Which?", "Final answer": "3", "file_name": "a.xlsx"}
    path = write(tmp_path / "g.jsonl", gaia, gaia | {"task_id": "b", "file_name": ""})
    assert [one.id for one in read_questions(path)] == ["b"]
    hle = {"id": "a", "question": "Which?", "image": "data:image/png;base64,aa", "answer": "3"}
    path = write(tmp_path / "h.jsonl", hle, hle | {"id": "b", "image": None})
    assert [one.id for one in read_questions(path)] == ["b"]


def test_a_hub_is_asked_under_its_name_and_rows_are_numbered_in_its_order(monkeypatch) -> None:
    asked = []

    def rows(source, *, name):
        asked.append(source)
        for number, text in enumerate(("a", "b")):
            yield Row(f"{source}[{number}]", {"question": f"{text}?", "golden_answers": [text]})

    monkeypatch.setattr("agentrl.envs.search.sources.read_rows", rows)
    source = "hub:RUC-NLPIR/FlashRAG_datasets/nq@test"
    assert [one.id for one in read_questions(source, split="eval")] == ["eval-0", "eval-1"]
    assert asked == [source]


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(gzip.compress(b'{"id": "a", "title": "T", "text": "x"}\n'))
    assert read_corpus(path) == [Passage("a", "T", "x")]


ROW = '{"id": "a", "title": "T", "text": "x"}'

CORPUS_MISTAKES = {
    "empty file": ("", ": the corpus is empty"),
    "only white space": ("\n \n", ": the corpus is empty"),
    "not JSON": (
        f"{ROW}\n{{'id': 1}}",
        ":2: not JSON: Expecting property name enclosed in double quotes at column 2",
    ),
    "cut short": (
        f'{ROW}\n{{"id": "b", "ti',
        ":2: not JSON: Unterminated string starting at column 13",
    ),
    "no object": ('["a", "T"]', ':1: a row must be a JSON object, got ["a", "T"]'),
    "no format": (
        '{"key": 1, "body": 2}',
        ":1: a row of a corpus must have the keys 'id', 'title', 'text' or 'id', 'contents' or "
        "'id', 'subject', 'relation', 'object', got 'key', 'body'",
    ),
    "a key missing later": (
        f'{ROW}\n\n{{"id": "b", "titel": "T", "text": "x"}}',
        ":3: a row of this corpus must have 'id', 'title', 'text', but 'title' is missing. "
        "It has 'titel' instead.",
    ),
    "two formats": (
        f'{ROW}\n{{"id": "b", "contents": "x"}}',
        ":2: a row of this corpus must have 'id', 'title', 'text', but 'title' is missing.",
    ),
    "same id twice": (f"{ROW}\n{ROW}", ":2: id 'a' is already that of line 1"),
    "text is a list": (
        '{"id": "a", "title": "T", "text": ["x"]}',
        ":1: 'text' must be text, got [\"x\"]",
    ),
    "text is empty": ('{"id": "a", "title": "T", "text": " "}', ":1: 'text' is empty"),
    "id is null": ('{"id": null, "title": "T", "text": "x"}', ":1: 'id' must be text, got null"),
    "id is true": ('{"id": true, "title": "T", "text": "x"}', ":1: 'id' must be text, got true"),
}


@pytest.mark.parametrize("name", CORPUS_MISTAKES)
def test_a_malformed_corpus_names_line_and_mistake(name: str, tmp_path: Path) -> None:
    content, message = CORPUS_MISTAKES[name]
    path = tmp_path / "corpus.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_corpus(path)
    assert str(caught.value) == f"{path}{message}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


GOOD = '{"id": "q", "question": "Who?", "answers": ["A"], "support": ["p"]}'

QUESTION_MISTAKES = {
    "empty file": ("", ": the question file is empty"),
    "no answers": (
        '{"id": "q", "question": "Who?", "answers": []}',
        ":1: 'answers' has no answer, got []",
    ),
    "blank answers": (
        '{"id": "q", "question": "Who?", "answers": [""]}',
        ":1: 'answers' has no answer, got [\"\"]",
    ),
    "answers is text": (
        '{"id": "q", "question": "Who?", "answers": "A"}',
        ":1: 'answers' must be a list of texts, got \"A\"",
    ),
    "answers hold a number": (
        '{"id": "q", "question": "Who?", "golden_answers": [1912]}',
        ":1: 'golden_answers' must be a list of texts, got [1912]",
    ),
    "no question": (
        '{"id": "q", "query": "Who?", "answers": ["A"]}',
        ":1: a row of a question file must have the keys 'question', 'answers' or 'question', "
        "'golden_answers' or 'question', 'possible_answers' or 'question', 'answer', "
        "'answer_aliases' or 'question', 'image', 'answer' or 'question', 'answer' or 'problem', "
        "'answer' or 'Question', 'Answer' or 'Question', 'Final answer', "
        "got 'id', 'query', 'answers'",
    ),
    "possible answers are no JSON": (
        '{"question": "Who?", "possible_answers": "[A]"}',
        ":1: 'possible_answers' holds no JSON list: Expecting value: line 1 column 2 (char 1)",
    ),
    "one answer is a number": (
        '{"question": "Who?", "answer": 1912}',
        ":1: 'answer' must be a list of texts, got 1912",
    ),
    "the answer is hidden": (
        '{"task_id": "g", "Question": "Who?", "Final answer": "?", "file_name": ""}',
        ":1: 'Final answer' is '?': the answers of this split are not published",
    ),
    "hops below zero": (GOOD[:-1] + ', "hops": -1}', ":1: 'hops' must be a whole number, got -1"),
    "support not in the corpus": (
        f'{GOOD}\n{{"id": "r", "question": "Who?", "answers": ["A"], "support": ["zz"]}}',
        ":2: support 'zz' is not an id of the corpus",
    ),
    "same id twice": (f"{GOOD}\n{GOOD}", ":2: id 'q' is already that of line 1"),
}


@pytest.mark.parametrize("name", QUESTION_MISTAKES)
def test_a_malformed_question_file_names_line_and_mistake(name: str, tmp_path: Path) -> None:
    content, message = QUESTION_MISTAKES[name]
    path = tmp_path / "questions.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_questions(path, known={"p"})
    assert str(caught.value) == f"{path}{message}"


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    missing = tmp_path / "no.jsonl"
    with pytest.raises(DataError) as caught:
        read_corpus(missing)
    assert str(caught.value) == f"{missing}: there is no such corpus"
    with pytest.raises(DataError) as caught:
        read_questions(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a question file must be a file, this is a folder"
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(f"{ROW}\n".encode() + '{"id": "é"}'.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_corpus(latin)
    assert str(caught.value) == f"{latin}:2: not UTF-8 at byte 9 of the line"
    cut = tmp_path / "cut.jsonl.gz"
    rows = "".join(f'{{"id": "{n}", "title": "T", "text": "{n * 7919}"}}\n' for n in range(5000))
    cut.write_bytes(gzip.compress(rows.encode())[:-2000])
    with pytest.raises(
        DataError, match=r"cut\.jsonl\.gz:\d+: the gzip file is damaged or cut short"
    ):
        read_corpus(cut)


@given(
    st.text(st.characters(exclude_characters="\n\r", codec="utf-8")).map(str.strip),
    st.text(st.characters(codec="utf-8")).map(str.strip),
)
def test_contents_come_apart_as_they_were_joined(title: str, text: str) -> None:
    assert split_contents(join_contents(title, text)) == (title, text)

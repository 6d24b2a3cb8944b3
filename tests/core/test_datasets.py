from __future__ import annotations

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from agentrl.core.datasets import read_rows
from agentrl.core.errors import DataError, SetupError

ROWS = [{"id": "a", "question": "é?", "n": 1}, {"id": "b", "question": "two\nlines", "n": 2}]


def written(folder, name):
    path = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    match name:
        case "rows.jsonl":
            path.write_text(lines + "\n")
        case "rows.jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "rows.json":
            path.write_text(json.dumps(ROWS))
        case "rows.csv":
            path.write_text('id,question,n\na,é?,1\nb,"two\nlines",2\n')
        case "rows.parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("rows.jsonl", (":1", ":2")),
        ("rows.jsonl.gz", (":1", ":2")),
        ("rows.json", ("[0]", "[1]")),
        ("rows.csv", (":2", ":4")),
        ("rows.parquet", ("[0]", "[1]")),
    ],
)
def test_every_kind_of_file_gives_its_rows_with_their_places(tmp_path, name, places):
    path = written(tmp_path, name)
    rows = list(read_rows(str(path)))
    expected = ROWS if name != "rows.csv" else [{**row, "n": str(row["n"])} for row in ROWS]
    assert [dict(row.data) for row in rows] == expected
    assert [row.place for row in rows] == [f"{path}{place}" for place in places]


def test_a_hub_source_reads_like_a_file_or_says_why_not(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(path, config, *, split):
        asked.append((path, config, split))
        if path == "o/gone":
            raise ConnectionError("no route\nmore")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = list(read_rows("hub:openai/gsm8k/main@train"))
    assert asked == [("openai/gsm8k", "main", "train")]
    assert [row.text("id") for row in rows] == ["a", "b"]
    assert rows[1].place == "hub:openai/gsm8k/main@train[1]"
    with pytest.raises(
        SetupError, match=r"o/gone@test could not be read: ConnectionError: no route\. "
    ):
        list(read_rows("hub:o/gone@test"))
    for bad in ("hub:gsm8k@train", "hub:o/n", "hub:o//c@train", "hub:o/n@"):
        with pytest.raises(DataError, match="names no data set of a hub"):
            list(read_rows(bad))


def test_a_file_of_a_hub_is_read_by_its_suffix(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(builder, *, data_files, split):
        asked.append((builder, data_files, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(list(read_rows("hub:o/n/test*.jsonl@train"))) == len(ROWS)
    assert asked == [("json", "hf://datasets/o/n/test*.jsonl", "train")]


def test_a_file_may_be_read_for_one_of_its_splits(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    splits = ["test", "train", "test"]
    path.write_text("".join(f'{{"id": {n}, "split": "{one}"}}\n' for n, one in enumerate(splits)))
    assert [row.id() for row in read_rows(f"{path}@test")] == ["0", "2"]
    monkeypatch.chdir(tmp_path)
    assert [row.place for row in read_rows("./rows.jsonl@train")] == ["rows.jsonl:2"]
    with pytest.raises(DataError, match=r"no row is of split 'dev'\. Splits there: test, train"):
        list(read_rows(f"{path}@dev"))
    with pytest.raises(DataError, match="there is no such data set"):
        list(read_rows(f"{tmp_path / 'other.jsonl'}@test"))
    at = tmp_path / "odd@test"
    at.write_text('{"id": 7}\n')
    assert [row.id() for row in read_rows(str(at))] == ["7"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b'{"a": 1}', "must be an array of rows"),
        ("x.json", b"[1]", r"x\.json\[0\]: a row must be a JSON object, got 1"),
        ("x.jsonl", b'{"a": 1}\n{"a"', r"x\.jsonl:2: not JSON"),
        ("x.csv", b"a,b\n1,2\n3\n", r"x\.csv:3: not as many fields"),
        ("x.csv", b"a,b\n1,2,3\n", r"x\.csv:2: not as many fields"),
        ("x.parquet", b"PAR1junkPAR1", "not a whole Parquet file"),
    ],
)
def test_a_malformed_file_says_where(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_rows(path))


def test_a_row_checks_what_it_is_asked_for(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1, "b": " ", "c": ["x", 2], "d": -1}\n')
    (row,) = read_rows(path)
    for ask, said in (
        (lambda: row.text("z"), "no 'z'. Its keys: 'a', 'b', 'c', 'd'"),
        (lambda: row.text("a"), "'a' must be text, got 1"),
        (lambda: row.text("b"), "'b' is empty"),
        (lambda: row.texts("c"), "'c' must be a list of texts"),
        (lambda: row.count("d"), "'d' must be a whole number"),
    ):
        with pytest.raises(DataError) as caught:
            ask()
        assert str(caught.value).startswith(f"{path}:1: ") and said in str(caught.value)
    assert row.id("a") == "1" and row.text("b", empty=True) == " "

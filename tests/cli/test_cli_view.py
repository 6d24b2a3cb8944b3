"""`agentrl view` writes a file, and says what it cannot show or do."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app


def told(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["view", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"iteration": 1, "a/b": 1.0}) + "\n{cut")
    return folder


def test_a_file_is_written_and_its_notes_are_counted(run, tmp_path):
    code, said = told(run, "--out", tmp_path / "new" / "page.html")
    assert code == 0 and "0 trajectories" in said and "notes: 1" in said
    assert "octet-stream" in (tmp_path / "new" / "page.html").read_text()


def test_what_is_no_folder_of_ours_is_refused_by_name(run, tmp_path):
    code, said = told(tmp_path / "missing", "--out", tmp_path / "x.html")
    assert code == 2 and "missing: no such folder of a run or an evaluation" in said
    code, said = told(run, tmp_path, "--out", tmp_path / "x.html")
    assert code == 2 and "neither a run" in said
    assert not (tmp_path / "x.html").exists()


def test_a_folder_in_place_of_the_file_is_refused(run, tmp_path):
    code, said = told(run, "--out", tmp_path)
    assert code == 2 and "is a folder; name the file to write" in said

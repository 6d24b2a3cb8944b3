"""`agentrl suite` as its users see it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.evals.suites import SUITES

RUN = CliRunner()
WIDE = {"COLUMNS": "200"}

OWN = """
from agentrl.evals.suite import Rows, Suite

SUITE = Suite(
    name="mine",
    title="Mine [bold]",
    family="math",
    env="math/problems",
    rows={"eval": Rows(file="mine.jsonl")},
    max_turns=1,
)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine_suites.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder, *rows):
    text = "".join(
        json.dumps(dict(zip(("id", "problem", "answer"), one, strict=True))) + "\n" for one in rows
    )
    (folder / "mine.jsonl").write_text(text)


def suite(*words):
    return RUN.invoke(app, ["suite", *words], env=WIDE)


def test_list_has_every_suite():
    done = suite("list")
    assert done.exit_code == 0
    assert all(one.tag in done.output for one in SUITES.values())


def test_show_says_where_rows_come_from_and_what_the_policy_reads():
    done = suite("show", "frozenlake")
    assert done.exit_code == 0
    for said in ("games/frozenlake (size=8", "turns: 30", "You are", "--policy Qwen/Qwen3-0.6B"):
        assert said in done.output


def test_show_goes_on_without_rows(tmp_path):
    done = suite("show", "olympiadbench", "--data", str(tmp_path))
    assert done.exit_code == 0
    for said in ("2402.14008", "Hothan/OlympiadBench", "2084: its answer is", "(not read: suite"):
        assert said in done.output


def test_check_of_a_suite_of_ones_own(folder):
    write(folder, ("a", "What is 1 + 1?", "2"), ("b", "What is 1 + 2?", "3"))
    done = suite("check", "mine_suites:SUITE", "--data", ".")
    assert done.exit_code == 0, done.output
    assert "2 of 2 score 1" in done.output and "2 of 2 score 0" in done.output
    done = suite("show", "mine_suites:SUITE", "--data", ".")
    assert "Mine [bold]" in done.output and "What is 1 + 1?" in done.output
    done = suite("check", "mine_suites:SUITE", "--data", ".", "--policy-free", "--tasks", "1")
    assert done.exit_code == 0 and "mine@1, tasks: 1" in done.output
    assert "no episode was to be played" in done.output


def test_a_fault_ends_with_1_and_names_the_tasks(folder):
    write(folder, ("a", "What is 1 + 1?", "2"), ("ten", "Which?", "f(n)=n"))
    done = suite("check", "mine_suites:SUITE", "frozenlake", "--data", ".", "--tasks", "5")
    assert done.exit_code == 1
    assert "tasks that do not score 0: ten" in done.output
    assert "faults in mine@1" in done.output and "frozenlake@1, tasks: 5" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "gsm8"], "no suite 'gsm8'. Did you mean 'gsm8k'?"),
        (["check", "tau2_retail"], "is on no hub: name the folder that holds"),
        (["check", "gsm8k", "--data", "."], "no file gsm8k/test.jsonl; `agentrl suite show gsm8k`"),
        (["check", "nothing_of_mine:SUITE"], "its module cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_a_user_can_mend_ends_with_2(words, said, folder):
    done = suite(*words)
    assert done.exit_code == 2 and said in done.stderr

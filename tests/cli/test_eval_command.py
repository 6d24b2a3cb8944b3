"""`agentrl eval` and `agentrl rescore` as a user types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app

runner = CliRunner()

MINE = """
from agentrl.evals.suite import Suite
SUMS = Suite(name="sums", title="Sums", family="math", env="demo/calculator")
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a suite of its own, in which the commands are given."""
    (tmp_path / "my_suites.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    done = runner.invoke(app, list(words))
    return done.exit_code, done.output


def test_a_suite_is_evaluated_resumed_and_scored_again(here):
    asked = ["eval", "my_suites:SUMS", "rollout.concurrency=4", "--policy", "scripted:oracle"]
    code, said = run(*asked, "--tasks", "3", "--samples", "2", "--out", "first")
    assert code == 0, said
    assert "sums@1  correct 100.0 %" in said and "(3 tasks x 2)" in said
    assert "results are in first/results.json" in said
    plan = json.loads(Path("first/plan.json").read_text())
    assert plan["rollout"]["concurrency"] == 4 and plan["suites"][0]["samples"] == 2

    code, said = run("eval", "--resume", "--out", "first")
    assert code == 0 and "everything is played already in first" in said

    code, said = run("rescore", "first", "max_turns=2", "--out", "again")
    assert code == 0 and "6 samples have another score" in said
    assert json.loads(Path("again/results.json").read_text())["suites"][0]["scored"] == 6


def test_the_folder_has_the_suites_name_by_default(here):
    assert run("eval", "my_suites:SUMS", "--policy", "scripted:oracle", "--tasks", "1")[0] == 0
    (made,) = Path("runs").iterdir()
    assert made.name.startswith("eval-sums-") and (made / "results.json").exists()
    assert run("rescore", str(made), "--grader", "exact_match")[0] == 0
    assert len(list(Path("runs").glob("eval-sums-*-rescored-*"))) == 1


@pytest.mark.slow
def test_a_recipe_is_evaluated_without_its_model_by_a_script(here):
    code, said = run(
        "eval", "arpo_search", "runtime=local", "--policy", "scripted:oracle", "--tasks", "4"
    )
    assert code == 0, said
    assert "recipe:arpo_search@1  em 100.0 %" in said
    (made,) = Path("runs").iterdir()
    assert made.name.startswith("eval-arpo_search-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval"], "name what to evaluate on"),
        (["eval", "gsm8k"], "a suite needs --policy"),
        (["eval", "--resume"], "name its folder"),
        (["eval", "--resume", "--out", "nothing"], "holds no evaluation"),
        (["eval", "--resume", "--out", "x", "--tasks", "3"], "leave --tasks out"),
        (["eval", "my_suites:SUMS", "--policy", "runs/none", "--tokenizer", "x"], "is for servers"),
        (["eval", "my_suites:SUM", "--policy", "x"], "has no 'SUM'. Did you mean 'SUMS'"),
        (["rescore", "nothing"], "holds no evaluation"),
        (["rescore", "nothing", "accept"], "is no setting of the environment"),
    ],
)
def test_misuse_is_told_in_a_line_and_makes_nothing(here, words, said):
    code, output = run(*words)
    assert code == 2 and said in output and "Traceback" not in output
    assert not Path("runs").exists() and not Path("nothing").exists() and not Path("x").exists()

"""An evaluation judged from the command line: counts, what is not graded, and what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from judge_server import Said, judge_server
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.evals.folder import EvalFolder
from agentrl.evals.judge_prompt import prompt_hash
from agentrl.evals.samples import final_samples

ANSWERS = ("correct", "wrong", "silent", "odd", "hostile")


@pytest.fixture
def played(tmp_path: Path, monkeypatch) -> Path:
    """Five questions of SimpleQA's form, answered by a script with the gold answers."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data" / "simpleqa_500"
    data.mkdir(parents=True)
    rows = [{"id": one, "question": f"What is {one}?", "answer": [one]} for one in ANSWERS]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("eval", "simpleqa_closed", "--policy", "scripted:oracle", "--data", "data", "--out", "e")
    return tmp_path / "e"


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def say(prompt: str) -> Said:
    answer = re.search(r"<submitted \w+>\n(.*?)\n</submitted", prompt, re.DOTALL)[1]
    grades = {"correct": "CORRECT", "wrong": "INCORRECT", "silent": "NOT_ATTEMPTED"}
    return Said(f"Grade: {grades[answer]}" if answer in grades else f"I would say {answer}")


def test_a_judge_scores_what_was_played_and_keeps_every_verdict(played, tmp_path) -> None:
    judging = ("--judge-model", "wise", "--judge-prompt", "simpleqa", "judge.server.retries=0")
    with judge_server(say) as server:
        said = run("rescore", "e", "--judge", server.url, *judging, "--out", "j")
        assert len(server.bodies) == 5
        run("rescore", "e", "--judge", server.url, *judging, "--out", "again")
        # Only what was not graded is asked again.
        assert len(server.bodies) == 7
    assert "simpleqa_closed@1: 3 judged: 33.3% correct (50.0% of those attempted)" in said
    assert "F 40.0%; 2 that the judge did not grade count in nothing" in said
    (suite,) = EvalFolder(tmp_path / "j").read_results().suites
    assert (suite.score, suite.scored, suite.failures) == ("judge", 3, {"ungraded": 2})
    found = {name: one.value for name, one in suite.estimates.items()}
    assert found["judge"] == pytest.approx(1 / 3) and found["em"] == 1.0
    assert found["judge_attempted"] == pytest.approx(2 / 3)
    assert found["judge_if_attempted"] == pytest.approx(1 / 2)
    results = EvalFolder(tmp_path / "j").read_results()
    hash_ = prompt_hash("simpleqa")
    assert results.provenance.rescored.startswith(f"judged by wise, prompt simpleqa ({hash_})")
    lines = (tmp_path / "j/verdicts.jsonl").read_text().splitlines()
    verdicts = {one["answer"]: one for one in map(json.loads, lines)}
    grades = ["correct", "incorrect", "not_attempted", None, None]
    assert [verdicts[answer]["grade"] for answer in ANSWERS] == grades
    assert all((one["judge"], one["prompt_hash"]) == ("wise", hash_) for one in verdicts.values())
    assert verdicts["odd"]["told"].startswith("the judge's reply was not understood")
    # The evaluation itself is as it was.
    assert all("judge" not in one.scores for one in final_samples(played / "samples.jsonl"))


def test_a_judged_evaluation_played_again_keeps_no_verdict(played, tmp_path) -> None:
    with judge_server(say) as server:
        run("rescore", "e", "--judge", server.url, "--judge-model", "wise", "--out", "j")
    run("rescore", "j", "prompt=tag", "--out", "again")
    (suite,) = EvalFolder(tmp_path / "again").read_plan().suites
    assert suite.score == "em" and not [one for one in suite.also if one.startswith("judge")]
    assert all("judge" not in one.scores for one in final_samples(tmp_path / "again/samples.jsonl"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--judge-model", "wise"), "a judge needs --judge"),
        (("judge.temperature=1",), "a judge needs --judge"),
        (("--judge", "http://127.0.0.1:9/v1"), "name the judge with --judge-model"),
        (("--judge", "here", "--judge-model", "wise"), "starts with http:// or https://"),
        (
            ("--judge", "http://127.0.0.1:9/v1", "--judge-model", "w", "--judge-prompt", "short"),
            "input should be 'answer', 'simpleqa' or 'response', got 'short'",
        ),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_anything_starts(words, told) -> None:
    done = CliRunner().invoke(app, ["rescore", "nowhere", *words])
    assert done.exit_code != 0 and told in str(done.exception or "") + done.output

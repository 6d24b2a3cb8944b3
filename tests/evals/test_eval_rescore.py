"""Stored trajectories scored again: by replay, with other settings, by another grader."""

import json
from pathlib import Path

import pytest
from eval_fakes import plan

from agentrl.core.errors import DataError, RecipeError
from agentrl.core.types import Task
from agentrl.envs.demo import CalculatorEnv
from agentrl.evals.folder import EvalFolder
from agentrl.evals.rescore import GRADERS, Rescoring, references_of, rescore
from agentrl.evals.run import evaluate
from agentrl.evals.samples import final_samples
from agentrl.graders.math import Grade, Outcome


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """Six questions, of which the script answers the odd ones wrong."""
    out = tmp_path / "eval"
    evaluate(plan(hint="wrong"), out)
    return out


def samples(out: Path) -> list:
    return list(final_samples(out / "samples.jsonl"))


def test_a_replay_under_the_same_settings_gives_the_same_samples(played, tmp_path, capsys):
    before = (played / "samples.jsonl").read_bytes()
    (played / "images").mkdir()
    (played / "images" / "0f.png").write_bytes(b"png")
    found = rescore(played, tmp_path / "again", Rescoring())
    assert (found.changed, found.lost) == (0, 0)
    assert samples(tmp_path / "again") == samples(played)
    assert (played / "samples.jsonl").read_bytes() == before
    assert (tmp_path / "again" / "images" / "0f.png").read_bytes() == b"png"
    assert "0 samples have another score" in capsys.readouterr().out
    said = EvalFolder(tmp_path / "again").read_results().provenance.rescored
    assert said == f"replayed through the environment; samples of {played}"


def test_other_settings_of_the_environment_score_what_was_played(played, tmp_path):
    # The wrong answers are 1010, 1030 and 1050; with an offset of 909 the answer to q1 is 1010.
    found = rescore(played, tmp_path / "again", Rescoring(settings=("offset=909",)))
    right = [one.key.task_id for one in samples(tmp_path / "again") if one.scores["correct"]]
    assert right == ["q1"] and found.changed == 4 and found.lost == 0
    new = next(one for one in samples(tmp_path / "again") if one.key.task_id == "q1")
    assert new.solved_turn == 1 and [turn.reward for turn in new.tree.turns] == [0.0, 1.0]
    (suite,) = EvalFolder(tmp_path / "again").read_plan().suites
    assert suite.args["offset"] == 909
    assert found.results.suites[0].estimates["correct"].value == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hint=wrong way", "replay diverged: the observation of turn 0 was"),
        ("turns=3", "replay diverged: the episode goes on after the last stored action"),
    ],
)
def test_a_replay_that_diverges_is_marked_and_not_counted(played, tmp_path, setting, said):
    found = rescore(played, tmp_path / "again", Rescoring(settings=(setting,)))
    assert (found.lost, found.changed) == (6, 0)
    assert all(one.error.startswith(said) for one in samples(tmp_path / "again"))
    (suite,) = found.results.suites
    assert suite.failures == {"environment": 6} and suite.scored == 0


def test_an_episode_that_ends_sooner_now_is_scored_where_it_ends(played, tmp_path):
    rescore(played, tmp_path / "again", Rescoring(settings=("turns=1",)))
    first = samples(tmp_path / "again")[0]
    assert (first.turns, first.scores["correct"], first.answers) == (1, 0.0, (None,))
    assert len(first.tree.turns) == len(first.texts) == 1


def test_a_failure_of_the_replay_is_kept_apart_from_a_wrong_answer(played, tmp_path):
    path = tmp_path / "trouble.json"
    path.write_text(json.dumps({"q0": "crash", "q1": "ungraded"}))
    found = rescore(played, tmp_path / "again", Rescoring(settings=(f"trouble={path}",)))
    assert found.results.suites[0].failures == {"environment": 1, "ungraded": 1}
    assert found.lost == 2 and found.changed == 0
    # A sample that was lost stays as it is, and the one that replays it says so.
    rescore(tmp_path / "again", tmp_path / "third", Rescoring(settings=('trouble=""',)))
    assert [one.failure for one in samples(tmp_path / "third")][:2] == ["environment", "ungraded"]


def test_answers_are_graded_by_another_grader(played, tmp_path):
    found = rescore(played, tmp_path / "again", Rescoring(grader="cover_match"))
    assert found.changed == 3  # 1010 holds 101
    assert found.results.suites[0].score == "cover_match"
    assert found.results.suites[0].estimates["cover_match"].value == 1.0
    first = samples(tmp_path / "again")[1]
    assert first.scores == {**samples(played)[1].scores, "cover_match": 1.0}
    assert first.solved_turn == 1
    strict = rescore(played, tmp_path / "exact", Rescoring(grader="exact_match"))
    assert strict.changed == 0
    assert strict.results.suites[0].estimates["correct"].value == 0.5


def test_another_component_counts(played, tmp_path):
    found = rescore(played, tmp_path / "again", Rescoring(score="length"))
    assert found.results.suites[0].estimates["length"].value == 3.5
    (suite,) = EvalFolder(tmp_path / "again").read_plan().suites
    assert (suite.score, suite.also) == ("length", ("correct",))
    with pytest.raises(RecipeError, match=r"has no score 'lenght'; it has"):
        rescore(played, tmp_path / "third", Rescoring(score="lenght"))
    assert not (tmp_path / "third").exists() and not list(tmp_path.glob(".third*"))


def test_what_cannot_be_is_refused_before_anything_is_written(played, tmp_path):
    with pytest.raises(RecipeError, match=r"no grader is named 'maths'. Did you mean 'math'"):
        rescore(played, tmp_path / "again", Rescoring(grader="maths"))
    with pytest.raises(RecipeError, match=r"has no setting 'offst'. Did you mean 'offset'"):
        rescore(played, tmp_path / "again", Rescoring(settings=("offst=1",)))
    with pytest.raises(DataError, match="holds no evaluation"):
        rescore(tmp_path / "nothing", tmp_path / "again", Rescoring())
    with pytest.raises(DataError, match="holds something already"):
        rescore(played, played, Rescoring())
    with pytest.raises(DataError, match="task 'q3' of quiz@1 is not there any more"):
        rescore(played, tmp_path / "again", Rescoring(settings=("questions=3",)))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("grader", "answer", "references", "score"),
    [
        ("math", "\\frac{2}{4}", ("7", "0.5"), 1.0),
        ("math", "0.51", ("0.5",), 0.0),
        ("exact_match", "The  Paris!", ("paris",), 1.0),
        ("exact_match", "in Paris", ("paris",), 0.0),
        ("cover_match", "in Paris", ("paris",), 1.0),
        ("token_f1", "in Paris", ("paris",), 2 / 3),
    ],
)
def test_graders_by_hand(grader, answer, references, score):
    assert GRADERS[grader](answer, references) == pytest.approx(score)


def test_references_come_from_the_task_or_its_gold_action():
    env = CalculatorEnv()
    assert references_of(Task("t", {"answers": ["a", "b"]}), env) == ("a", "b")
    assert references_of(Task("t", {"answer": "a"}), env) == ("a",)
    assert references_of(Task("t", {"terms": [1, 2, 3]}), env) == ("6",)


def test_an_answer_that_the_grader_failed_on_is_lost_and_not_wrong(played, tmp_path, monkeypatch):
    def fails(answer, gold):
        return Grade(Outcome.UNGRADED, "the worker died", answer)

    monkeypatch.setattr("agentrl.evals.rescore.grade_answer", fails)
    found = rescore(played, tmp_path / "again", Rescoring(grader="math"))
    answered = [one for one in samples(tmp_path / "again") if one.answer is not None]
    assert answered and all(one.failure == "ungraded" and not one.scores for one in answered)
    assert "the worker died" in answered[0].error
    (suite,) = found.results.suites
    assert found.lost == suite.failures["ungraded"] == len(answered)

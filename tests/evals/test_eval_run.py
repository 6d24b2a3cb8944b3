"""Evaluations from plan to results: what is played, lost, gone on with and refused."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eval_fakes import HERE, plan

from agentrl.core.errors import DataError, EngineError, EnvError, SetupError
from agentrl.core.types import Group
from agentrl.evals.folder import EvalFolder
from agentrl.evals.plan import Price
from agentrl.evals.play import Patience, play_missing, sample_seed
from agentrl.evals.record import lost_sample
from agentrl.evals.rescore import Rescoring, rescore
from agentrl.evals.run import evaluate
from agentrl.evals.samples import Key, final_samples, read_samples
from agentrl.evals.tasks import load_suite
from agentrl.rollout.seeds import derive
from agentrl.rollout.transcript import Transcript


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "eval"


def estimates(out: Path) -> object:
    return json.loads((out / "results.json").read_text())["suites"][0]["estimates"]


def test_gold_scores_everything_and_spoiled_nothing(out):
    played = plan(samples=2)
    results = evaluate(played, out, command="agentrl eval quiz")
    (suite,) = results.suites
    assert (suite.planned, suite.scored, suite.missing, suite.failures) == (12, 12, 0, {})
    assert suite.estimates["correct"].value == 1.0
    assert EvalFolder(out).read_plan() == played and EvalFolder(out).read_results() == results
    assert results.provenance.command == "agentrl eval quiz" and results.provenance.sittings == 1
    spoiled = evaluate(plan("spoiled_oracle"), out.with_name("spoiled"))
    assert spoiled.suites[0].estimates["correct"].value == 0.0


def test_the_first_tasks_are_played_as_often_as_asked(out):
    evaluate(plan(tasks=2, samples=3), out)
    found = [one.key for one in final_samples(out / "samples.jsonl")]
    assert found == [Key("quiz@1", f"q{task}", number) for task in (0, 1) for number in range(3)]


def test_the_seed_of_a_sample_depends_on_its_key_alone(out):
    key = Key("quiz@1", "q3", 1)
    assert sample_seed(7, key) == derive(7, "eval", "quiz@1", "q3", 1)
    seeds = []
    for concurrency in (1, 8):
        folder = out.with_name(f"by{concurrency}")
        evaluate(plan(samples=2, rollout={"concurrency": concurrency}), folder)
        seeds.append(
            {one.key: (one.seed, one.tree.seed) for one in read_samples(folder / "samples.jsonl")}
        )
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 12
    assert seeds[0][key] == (sample_seed(0, key),) * 2


def trouble(tmp_path: Path, **faults: str) -> str:
    path = tmp_path / "trouble.json"
    path.write_text(json.dumps(faults))
    return str(path)


def test_what_was_lost_is_shown_not_counted_and_played_again(tmp_path, out, capsys):
    path = trouble(tmp_path, q1="crash", q2="ungraded", q3="no reset")
    wanted = plan(trouble=path, hint="wrong")
    (suite,) = evaluate(wanted, out).suites
    assert suite.failures == {"environment": 2, "ungraded": 1} and suite.scored == 3
    assert suite.estimates["correct"].value == pytest.approx(2 / 3)  # q0 and q4, not q5
    assert suite.if_failures_were_wrong == pytest.approx(2 / 6)
    assert "lost and not counted: 2 environment, 1 ungraded; 33.3 % if all were wrong" in (
        capsys.readouterr().out
    )
    by_task = {one.key.task_id: one for one in final_samples(out / "samples.jsonl")}
    assert "the machine is gone" in by_task["q1"].error and by_task["q1"].scores == {}
    assert "ungraded: the judge is away" in by_task["q2"].error

    Path(path).unlink()
    (suite,) = evaluate(wanted, out, resume=True).suites
    assert suite.failures == {} and suite.scored == 6
    assert suite.estimates["correct"].value == 0.5
    lines = [one.key.task_id for one in read_samples(out / "samples.jsonl")]
    assert sorted(lines[:6]) == [f"q{n}" for n in range(6)] and sorted(lines[6:]) == [
        "q1",
        "q2",
        "q3",
    ]
    evaluate(plan(trouble=path, hint="wrong"), out.with_name("undisturbed"))
    assert estimates(out) == estimates(out.with_name("undisturbed"))

    again = evaluate(wanted, out, resume=True)
    assert len(list(read_samples(out / "samples.jsonl"))) == 9
    assert again.provenance.sittings == 2


def test_a_line_that_a_kill_cut_is_played_again(out):
    evaluate(plan(hint="wrong"), out)
    log = out / "samples.jsonl"
    before = estimates(out)
    log.write_bytes(log.read_bytes()[:-30])
    results = evaluate(plan(hint="wrong"), out, resume=True)
    assert results.suites[0].missing == 0 and estimates(out) == before
    assert len(list(read_samples(log))) == 6


def test_a_folder_is_gone_on_with_only_when_asked_and_by_the_same_plan(out):
    evaluate(plan(), out)
    with pytest.raises(DataError, match="holds an evaluation already; add --resume"):
        evaluate(plan(), out)
    other = plan("spoiled_oracle", samples=2, turns=3).model_copy(update={"seed": 5})
    with pytest.raises(DataError, match="another evaluation") as refused:
        evaluate(other, out, resume=True)
    for key in (
        "policy ('scripted:oracle' there, 'scripted:spoiled_oracle' now)", "seed (0 there, 5 now)",
        "engine.script", "quiz@1 samples (1 there, 2 now)", "quiz@1 args.turns",
    ):  # fmt: skip
        assert key in str(refused.value)
    free = plan(rollout={"concurrency": 3, "retries": 4, "limits": {"tool_seconds": 5.0}})
    free = free.model_copy(update={"price": Price(prompt=1.0, generated=2.0)})
    assert evaluate(free, out, resume=True).suites[0].cost is not None
    assert EvalFolder(out).read_plan() == free


def test_resume_starts_what_nobody_started(out):
    assert evaluate(plan(), out, resume=True).suites[0].scored == 6


def test_samples_without_a_plan_are_refused(out):
    out.mkdir()
    (out / "samples.jsonl").write_text("")
    with pytest.raises(DataError, match="holds an evaluation already; choose another"):
        evaluate(plan(), out)


def test_two_processes_do_not_write_one_folder(out):
    out.mkdir()
    with (out / ".lock").open("w") as held:
        held.write("pid 17 on elsewhere")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match=r"another process \(pid 17 on elsewhere\)"):
            evaluate(plan(), out)
    assert not (out / "plan.json").exists()
    assert evaluate(plan(), out).suites[0].scored == 6


def test_a_suite_without_tasks_and_tasks_of_one_id_are_refused(out):
    with pytest.raises(DataError, match="no tasks in split 'test'"):
        evaluate(plan(split="test"), out)
    with pytest.raises(DataError, match="have one id, and results are kept by it: 'q'"):
        evaluate(plan(same_id=True), out)
    assert not out.exists()


def test_an_evaluation_whose_environment_is_down_ends_soon_and_keeps_what_it_has(tmp_path, out):
    faults = {f"q{n}": "crash" for n in range(10, 200)}
    path = trouble(tmp_path, **faults)
    wanted = plan(rollout={"concurrency": 2}, questions=200, trouble=path)
    with pytest.raises(EnvError, match=r"16 samples in a row were lost.*machine is gone") as ended:
        evaluate(wanted, out)
    assert f"agentrl eval --resume --out {out}" in str(ended.value)
    (suite,) = EvalFolder(out).read_results().suites
    assert suite.scored == 10 and 16 <= suite.failures["environment"] <= 18
    assert suite.missing == 200 - suite.scored - suite.failures["environment"]


def test_an_evaluation_of_which_nothing_could_be_scored_fails(tmp_path, out):
    path = trouble(tmp_path, **{f"q{n}": "no reset" for n in range(6)})
    with pytest.raises(EnvError, match=r"none of 6 samples could be scored.*no episode today"):
        evaluate(plan(trouble=path), out)


def test_a_score_that_no_sample_has_is_refused_and_not_0(out):
    said = (
        r"no sample has the score 'corect'. Did you mean 'correct'\? Known: correct, length, seen"
    )
    with pytest.raises(DataError, match=said):
        evaluate(plan(score="corect"), out)
    assert not (out / "results.json").exists() and lines(out) == 6
    found = rescore(out, out.with_name("mended"), Rescoring(score="correct"))
    assert found.results.suites[0].estimates["correct"].value == 1.0


def test_a_policy_that_never_came_to_an_answer_scores_0(out):
    (suite,) = evaluate(plan(turns=3, max_turns=2), out).suites
    assert suite.stop_reasons == {"truncated_turns": 6}
    assert suite.estimates["correct"].value == 0.0 and suite.failures == {}


class BrokenFleet:
    """Loses every second sample in a way that no group tells."""

    def __init__(self) -> None:
        self.asked = 0

    async def play_one(self, job) -> Group:
        self.asked += 1
        if self.asked % 2:
            raise EngineError("the worker died three times")
        raise ZeroDivisionError("who knows")


async def test_one_bad_sample_never_ends_the_evaluation():
    suite = await load_suite(plan().suites[0])
    found = []
    await play_missing(
        BrokenFleet(), suite, suite.planned(), seed=0, reader=Transcript(), at_once=2,
        patience=Patience(99), done=found.append,
    )  # fmt: skip
    assert {one.failure for one in found} == {"policy_server", "environment"}
    assert sorted(one.key.task_id for one in found) == [f"q{n}" for n in range(6)]
    assert {one.error for one in found} == {
        "the worker died three times", "ZeroDivisionError: who knows"
    }  # fmt: skip


async def test_patience_ends_with_the_error_of_what_is_down_and_a_success_restores_it():
    patience = Patience(3)
    key = Key("quiz@1", "q", 0)
    server = lost_sample(key, seed=0, failure="policy_server", error="gone")
    fine = lost_sample(key, seed=0, failure="", error="")
    ungraded = lost_sample(key, seed=0, failure="ungraded", error="judge")
    for one in (server, server, fine, server, ungraded, ungraded, server):
        patience.note(one)
    with pytest.raises(EngineError, match="3 samples in a row were lost; the last one: gone"):
        patience.note(server)


async def test_a_cancelled_sample_is_not_taken():
    class Slow:
        async def play_one(self, job):
            await asyncio.sleep(30)

    suite = await load_suite(plan().suites[0])
    found = []
    playing = play_missing(
        Slow(), suite, suite.planned(), seed=0, reader=Transcript(), at_once=2,
        patience=Patience(9), done=found.append,
    )  # fmt: skip
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(playing, 0.05)
    assert found == []


PROGRAM = """
import signal
import sys
from pathlib import Path
from eval_fakes import plan
from agentrl.evals.rescore import Rescoring, rescore
from agentrl.evals.run import evaluate
# Processes of a shell's background are born deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
evaluate(plan(questions=40, samples=3, seconds=0.02, hint="wrong", rollout={"concurrency": 4}),
         Path(sys.argv[1]), resume=True)
"""


def started(out: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def lines(out: Path) -> int:
    log = out / "samples.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for(out: Path, count: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 60
    while lines(out) < count:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_an_evaluation_that_is_killed_again_and_again_ends_as_if_it_had_not_been(out, tmp_path):
    for count in (1, 7, 19, 60, 100):
        process = started(out)
        wait_for(out, count, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = started(out)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    keys = [one.key for one in read_samples(out / "samples.jsonl")]
    assert len(keys) == len(set(keys)) == 120
    undisturbed = plan(questions=40, samples=3, hint="wrong", rollout={"concurrency": 9})
    evaluate(undisturbed, tmp_path / "undisturbed")
    assert estimates(out) == estimates(tmp_path / "undisturbed")
    assert EvalFolder(out).read_results().provenance.sittings == 6


@pytest.mark.slow
def test_a_stop_by_the_user_is_told_with_the_way_on(out):
    process = started(out)
    wait_for(out, 5, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" in said  # outside of the command line
    assert f"go on with `agentrl eval --resume --out {out}`" in said
    (suite,) = EvalFolder(out).read_results().suites
    assert suite.scored == lines(out) < 120 and suite.failures == {}
    assert suite.missing == 120 - suite.scored

"""500 samples against vLLM's own server, through faults and kills: each once, none made wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fault_proxy import FaultProxy
from vllm_server import served

from agentrl.evals.folder import EvalFolder
from agentrl.evals.rescore import Rescoring, rescore
from agentrl.evals.samples import Key, final_samples, last_lines, read_samples
from agentrl.recipe.models import resolve_model
from agentrl.samplers.lines import turn_seed

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")

TASKS, TIMES, KILLS = 250, 2, (60, 200, 350)
LONGEST = 8
"""More turns than an episode may have."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server of the small policy."""
    folder = tmp_path_factory.mktemp("server")
    with served(resolve_model("tiny/search"), folder, name="policy", max_model_len=512) as url:
        yield url


class Kill(NamedTuple):
    """What was finished when a process was killed, and how many requests had been sent."""

    finished: set[Key]
    requests: int


def sitting(out: Path, proxy: FaultProxy) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "agentrl", "eval", "arpo_search", "runtime=local",
        "--policy", proxy.url, "--model", "policy", "--tokenizer", resolve_model("tiny/search"),
        "--tasks", str(TASKS), "--samples", str(TIMES), "rollout.concurrency=48",
        "engine.timeout=4", "engine.backoff=0.05", "engine.retries=6",
        "--out", str(out), "--resume",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def killed_at(count: int, out: Path, proxy: FaultProxy) -> Kill:
    log, process = out / "samples.jsonl", sitting(out, proxy)
    until = time.monotonic() + 300
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {key for key, place in last_lines(log).items() if not place.failure}
    time.sleep(0.2)  # what was on its way is counted before, not after
    return Kill(finished, len(proxy.asked))


def seeds_of(seed: int) -> set[int]:
    """Seeds of the requests that a sample's turns make."""
    return {turn_seed(seed, (0,), turn) for turn in range(LONGEST)}


def test_faults_and_kills_cost_neither_samples_nor_truth(server, tmp_path):
    out = tmp_path / "eval"
    with FaultProxy(server, fails=0.10, hangs=0.02) as proxy:
        kills = [killed_at(count, out, proxy) for count in KILLS]
        last = sitting(out, proxy)
        said, _ = last.communicate(timeout=300)
        assert last.returncode == 0, said
        while any(place.failure for place in last_lines(out / "samples.jsonl").values()):
            last = sitting(out, proxy)  # one whose retries were all hit is played again
            assert last.communicate(timeout=300) and last.returncode == 0
    assert min(proxy.faults[kind] for kind in ("500", "reset", "hang")) > 5
    assert 0.08 < (proxy.faults["500"] + proxy.faults["reset"]) / len(proxy.asked) < 0.12

    # Every sample is there once: the last lines are all of them, and only a lost one has two lines.
    samples = {one.key: one for one in final_samples(out / "samples.jsonl")}
    assert len(samples) == TASKS * TIMES and not any(one.failure for one in samples.values())
    scored = [one.key for one in read_samples(out / "samples.jsonl") if not one.failure]
    assert len(scored) == len(set(scored)) == TASKS * TIMES

    # Nothing that was finished when a process was killed was asked again by a later one.
    for finished, requests in kills:
        later = set(proxy.asked[requests:])
        assert finished and not any(later & seeds_of(samples[key].seed) for key in finished)

    # Each turn is what the server said to it, whole; so no fault has become an answer.
    for one in samples.values():
        for number, turn in enumerate(one.tree.turns):
            told = proxy.told[turn_seed(one.seed, (0,), number)]
            assert turn.action_ids.tolist() in told

    # Totals are those of the samples, which a replay through the environment scores the same.
    results = EvalFolder(out).read_results()
    (suite,) = results.suites
    assert (suite.planned, suite.scored, suite.missing) == (500, 500, 0) and not suite.failures
    em = [one.scores["em"] for one in samples.values()]
    assert suite.estimates["em"].value == pytest.approx(sum(em) / len(em))
    assert 0.2 < sum(em) / len(em) < 0.8
    assert results.provenance.sittings >= len(KILLS) + 1
    again = rescore(out, tmp_path / "again", Rescoring())
    assert (again.changed, again.lost) == (0, 0)

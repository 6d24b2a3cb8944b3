"""Evaluations exported to inspect_ai, read back by its own package."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_evaluation import HOSTILE, four_samples, part, results, sample, write
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "adapters"))

from peers import peer

from agentrl.cli import app
from agentrl.core.errors import DataError
from agentrl.core.types import Failure, StopReason
from agentrl.evals.inspect_log import export_inspect
from agentrl.evals.inspect_sample import plain
from agentrl.evals.results import Amount, Estimate
from agentrl.evals.shown_text import encodable

READER = Path(__file__).with_name("inspect_reader.py")
BROKEN = HOSTILE + "x" * 1_000_000


def several(folder):
    """Two suites: one of two samples a task with all that can happen, one that was stopped."""
    lost = sample("t3", 1, failure="environment", error=BROKEN)
    mended = sample("t2", 1)
    mended.tree.failures.append(Failure(-1, StopReason.ENGINE_ERROR, "the server died"))
    cut = replace(sample("t1", 1, score=0.0), stop_reason=StopReason.TRUNCATED_TURNS)
    strange = sample(HOSTILE, 1, action=BROKEN, prompt=BROKEN)
    several = [*four_samples(), sample("t0", 1), cut, mended, lost, sample(HOSTILE), strange]
    estimates = part().estimates | {
        "pass@2": Estimate(value=0.9, low=0.5, high=1.0, tasks=5, method="cluster_t")
    }
    amounts = {
        "prompt_tokens": Amount(total=90.0, mean=10.0, median=10.0, p95=10.0),
        "generated_tokens": Amount(total=45.0, mean=5.0, median=5.0, p95=5.0),
    }
    both = part(
        tasks=5,
        samples=2,
        scored=9,
        failures={"environment": 1},
        estimates=estimates,
        amounts=amounts,
        cost=0.5,
    )
    stopped = part("other@2", scored=1, missing=3)
    samples = [*several, sample("o1", suite="other@2"), sample("t0", 7)]
    return write(folder, results([both, stopped], policy="http://host/v1"), samples)


def read_back(folder):
    done = subprocess.run(
        [peer("inspect"), str(READER), str(folder)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.peers
def test_inspect_ai_reads_what_was_exported(tmp_path):
    folder = several(tmp_path / "e")
    out = tmp_path / "logs"
    paths = export_inspect(folder, out)
    export_inspect(folder, out / "2026-11-20T21-00-00_toy.json", suite="toy")
    found = read_back(out)
    assert set(found) == {path.name for path in paths} | {"2026-11-20T21-00-00_toy.json"}
    toy = next(one for name, one in found.items() if one["task"] == "toy" and "eval" in name)
    assert found["2026-11-20T21-00-00_toy.json"] == toy  # Both forms say the same.

    strange = encodable(HOSTILE).replace("\0", "\ufffd")
    ids = sorted([strange, "t0", "t1", "t2", "t3"])
    assert (toy["version"], toy["status"], toy["task_version"]) == (2, "success", 1)
    assert (toy["epochs"], toy["total"], toy["completed"], toy["ids"]) == (2, 10, 9, ids)
    assert toy["scores"]["correct"] == {
        **{"mean": 0.75, "stderr": 0.2, "ci95_low": 0.3, "ci95_high": 0.95},
        "pass@2": 0.9,
    }
    assert toy["unscored"] == [1, 1]
    usage = toy["usage"]["http://host/v1"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_cost"]) == (90, 45, 0.5)

    samples = {(one["id"], one["epoch"]): one for one in toy["samples"]}
    assert set(samples) == {(task, epoch) for task in ids for epoch in (1, 2)}
    counted = [one["scores"]["correct"] for one in samples.values() if one["scores"]]
    assert sorted(counted) == [0.0] * 2 + [1.0] * 7
    plain_one = samples["t1", 1]
    assert plain_one["messages"] == [
        ["system", "Be brief."],
        ["user", "How many?"],
        ["assistant", "Let me look."],
        ["tool", "four is 4"],
        ["assistant", "It is 4."],
    ]
    assert plain_one["input"] == ["Be brief.", "How many?"] and plain_one["answer"] == "4"
    ((function, arguments, identity),) = plain_one["calls"]
    assert (function, arguments) == ("search", {"query": "four"})
    assert plain_one["answered"] == [identity] and plain_one["completion"] == "It is 4."
    assert samples["t1", 2]["limit"] == "turn" and samples["t2", 2]["retries"] == 1
    lost = samples["t3", 2]
    assert lost["scores"] is None and lost["error"] == f"environment: {encodable(BROKEN)}"
    assert samples[strange, 2]["completion"] == encodable(BROKEN)
    assert samples[strange, 2]["input"] == encodable(BROKEN)

    other = next(one for one in found.values() if one["task"] == "other")
    assert other["status"] == "cancelled" and other["task_version"] == 2
    assert (other["total"], other["completed"], len(other["samples"])) == (4, 1, 1)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.browser
def test_the_viewer_of_inspect_ai_shows_our_samples(tmp_path, served):
    folder = write(
        tmp_path / "e",
        results([part()], policy="runs/arpo"),
        [sample("wonderful-task", action="A quite particular answer."), *four_samples()[:3]],
    )
    export_inspect(folder, tmp_path / "logs")
    bundle = tmp_path / "bundle"
    subprocess.run(
        [
            *(peer("inspect", "inspect"), "view", "bundle"),
            *("--log-dir", str(tmp_path / "logs"), "--output-dir", str(bundle)),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    page = served(bundle)
    page.get_by_text("How many?").first.wait_for(timeout=30_000)
    shown = page.inner_text("body")
    assert "toy@1 — 4 samples" in shown and "correct\t0.75\t0.2\t0.3\t0.95" in shown
    page.get_by_text("wonderful-task").first.click()
    page.get_by_text("A quite particular answer.").first.wait_for(timeout=30_000)


@pytest.fixture
def served():
    """A function that serves a folder and opens it in Chromium."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from playwright.sync_api import sync_playwright

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    opened = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )

        def serve(folder):
            handler = partial(Quiet, directory=str(folder))
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            opened.append(server)
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
            return page

        yield serve
        browser.close()
        for server in opened:
            server.shutdown()
            server.server_close()


# -- without the package ----------------------------------------------------------------------


def test_a_log_is_a_zip_with_a_header_summaries_and_a_file_for_each_sample(tmp_path):
    folder = several(tmp_path / "e")
    (log,) = export_inspect(folder, tmp_path / "toy.eval", suite="toy@1")
    with zipfile.ZipFile(log) as archive:
        names = archive.namelist()
        summaries = json.loads(archive.read("summaries.json"))
        header = json.loads(archive.read("header.json"))
    assert names[-3:] == ["_journal/start.json", "summaries.json", "header.json"]
    assert len(names) == 13 and "samples/t3_epoch_2.json" in names
    assert len(summaries) == 10 and len(json.dumps(summaries)) < 60_000
    lost = next(one for one in summaries if "error" in one)
    assert (lost["id"], lost["epoch"], lost["scores"]) == ("t3", 2, None)
    # Dictionaries of JSON keep their order, and the format's readers rely on it.
    assert list(header)[:3] == ["version", "status", "eval"]


def test_exports_of_one_evaluation_are_equal(tmp_path):
    folder = several(tmp_path / "e")
    first = export_inspect(folder, tmp_path / "a.json", suite="toy")[0].read_bytes()
    assert export_inspect(folder, tmp_path / "b.json", suite="toy")[0].read_bytes() == first


def test_several_suites_need_a_folder_or_a_name(tmp_path):
    folder = several(tmp_path / "e")
    with pytest.raises(DataError, match=r"several suites \(toy@1, other@2\).*--suite"):
        export_inspect(folder, tmp_path / "x.eval")
    with pytest.raises(DataError, match=r"no suite 'othr'\. Did you mean 'other@2'"):
        export_inspect(folder, tmp_path / "x.eval", suite="othr")


def test_a_suite_without_samples_has_a_log_that_says_so(tmp_path):
    empty = part(scored=0, missing=4, estimates={}, stop_reasons={})
    (log,) = export_inspect(write(tmp_path / "e", results([empty]), []), tmp_path / "x.json")
    found = json.loads(log.read_text())
    assert found["samples"] == [] and found["results"]["total_samples"] == 4
    assert found["status"] == "cancelled"


def test_data_that_json_has_not_becomes_text():
    assert plain({1: ("\ud800", float("nan"), {"x": {2}}), "a": True}) == {
        "1": ["\ufffd", "nan", {"x": "{2}"}],
        "a": True,
    }


def test_the_command_names_what_it_wrote(tmp_path):
    folder = several(tmp_path / "e")
    done = CliRunner().invoke(
        app.app, ["export", "inspect", str(folder), "--out", str(tmp_path / "logs")]
    )
    assert done.exit_code == 0, done.output
    written = sorted((tmp_path / "logs").iterdir())
    assert sorted(done.output.split()) == [str(path) for path in written] and len(written) == 2
    assert {path.suffix for path in written} == {".eval"}

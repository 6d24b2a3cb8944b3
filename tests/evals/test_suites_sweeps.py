"""Gold actions solve every task of every suite whose rows are here, and spoiled ones none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from suite_data import SHARED_DATA, parameter

from agentrl.evals.check import CheckReport, check_suite
from agentrl.evals.suite import Rows, Suite
from agentrl.evals.suites import SUITES

COUNTS = {
    "gsm8k": 857,
    "olympiadbench": 405,
    "svamp": 600,
    "humaneval": 98,
    "mbpp": 302,
    "sokoban": 64,
    "boxoban": 600,
    "boxoban_medium": 600,
    "boxoban_hard": 600,
    "frozenlake": 64,
    "desktop": 26,
    "tau2_retail": 68,
    "tau2_airline": 30,
}
"""Tasks of the rows that are here, all of which are played."""

ALSO = (
    replace(SUITES["gsm8k"], name="gsm8k-train", rows={"eval": Rows(file="gsm8k/train.jsonl")}),
    *(
        replace(
            SUITES["mbpp"],
            name=f"mbpp-{split}",
            rows={"eval": Rows(file=f"mbpp/mbpp.jsonl@{split}")},
        )
        for split in ("train", "validation", "prompt")
    ),
    replace(SUITES["gsm8k"], name="made-problems", rows={}, split="train"),
)
"""Rows and problems that are in no suite, as suites."""

ALSO_COUNTS = {
    "gsm8k-train": 4857,
    "mbpp-train": 222,
    "mbpp-validation": 54,
    "mbpp-prompt": 6,
    "made-problems": 600,
}

QUICK = [one for one in COUNTS if SUITES[one].family not in ("web", "desktop")]


def held(report: CheckReport, suite: Suite) -> None:
    """Gold and spoiled actions were played in each task, known exceptions being those."""
    assert report.faults == ()
    for rule, known in (("gold", suite.gold_fails), ("spoiled", suite.spoiled_solves)):
        found = [one for one in report.findings if one.rule == rule]
        exceptions = {id_ for one in found if one.status == "known" for id_ in one.ids}
        wanted = 0 if rule == "spoiled" else 1
        right = report.tasks - len(exceptions)
        assert f"{right} of {report.tasks} score {wanted}" in [one.told for one in found]
        assert exceptions <= set(known)
        assert "note" not in {one.status for one in found}, "no episode had to be mended"


@pytest.mark.parametrize("suite", [parameter(SUITES[name]) for name in QUICK])
async def test_ten_tasks_of_a_suite(suite: Suite) -> None:
    suite = replace(suite, train=None)
    report = await check_suite(suite, data=SHARED_DATA, tasks=10)
    assert report.tasks == 10
    held(report, suite)


@pytest.mark.slow
@pytest.mark.parametrize("suite", [parameter(SUITES[name]) for name in COUNTS])
async def test_every_task_of_a_suite(suite: Suite) -> None:
    report = await check_suite(suite, data=SHARED_DATA)
    assert report.tasks == COUNTS[suite.name]
    held(report, suite)
    exceptions = {id_ for one in report.findings if one.status == "known" for id_ in one.ids}
    assert exceptions == {*suite.gold_fails, *suite.spoiled_solves, *suite.in_train}


@pytest.mark.slow
@pytest.mark.parametrize("suite", [parameter(SUITES["miniwob"])])
async def test_every_page_of_miniwob(suite: Suite) -> None:
    report = await check_suite(suite, tasks=103)
    assert report.tasks == 103
    held(report, suite)


@pytest.mark.slow
@pytest.mark.parametrize("suite", map(parameter, ALSO))
async def test_rows_that_are_in_no_suite(suite: Suite) -> None:
    report = await check_suite(replace(suite, train=None), data=SHARED_DATA)
    assert report.tasks == ALSO_COUNTS[suite.name]
    held(report, suite)


@pytest.mark.parametrize("suite", [parameter(SUITES["osworld"])])
async def test_osworld_rows_are_read_and_not_played(suite: Suite) -> None:
    report = await check_suite(suite, data=SHARED_DATA)
    assert report.tasks == 10 and not report.faults
    skipped = {one.rule: one.told for one in report.findings if one.status == "skipped"}
    assert skipped["gold"] == skipped["spoiled"] == "its rows hold no solutions"

"""The suites of questions: gold earns all and spoiled nothing on the rows that are here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from suite_data import SHARED_DATA, parameter

from agentrl.core.errors import RecipeError
from agentrl.core.registry import make_env
from agentrl.evals.check import CheckReport, check_suite
from agentrl.evals.suite import Rows, Suite
from agentrl.evals.suites import SUITES, deep_search, qa
from agentrl.evals.tasks import load_suite, plan_suite

COUNTS = {
    "nq": 2166,
    "nq_closed": 2166,
    "popqa": 374,
    "popqa_closed": 374,
    "bamboogle": 75,
    "bamboogle_closed": 75,
    "simpleqa": 300,
    "simpleqa_closed": 300,
    "nq_passages": 398,
    "multihop_wiki": 378,
    "wiki_facts": 252,
    "search_facts": 700,
}
"""Tasks of the rows that are here, all of which are played; a third of the facts."""

SEARCHED = ("nq_passages", "multihop_wiki", "wiki_facts", "search_facts")
"""Suites with a corpus, whose gold actions search for each passage before the answer."""

ROWS = {
    "triviaqa": {"id": "test_0", "question": "Who?", "golden_answers": ["Ann Lee", "A. Lee"]},
    "hotpotqa": {"id": "dev_0", "question": "Who?", "golden_answers": ["yes"]},
    "2wikimultihopqa": {"id": "dev_0", "question": "Who?", "golden_answers": ["Ann"]},
    "musique": {"id": "2hop__1_2", "question": "Who?", "golden_answers": ["Ann"]},
    "gaia": {"task_id": "g", "Question": "Who?", "Final answer": "a, 1", "file_name": ""},
    "webwalkerqa": {"question": "Who?", "answer": "Ann", "root_url": "https://a.org", "info": {}},
    "hle": {"id": "h", "question": "Who?", "image": "", "answer": "Ann"},
}
"""A made-up row of each set whose rows are not here, as its hub has it."""


def came_to(report: CheckReport) -> dict[str, tuple[str, str]]:
    return {one.rule: (one.status, one.told) for one in report.findings if one.status != "known"}


def held(report: CheckReport, suite: Suite) -> None:
    found = came_to(report)
    known = {id_ for one in report.findings if one.status == "known" for id_ in one.ids}
    assert report.faults == () and known == set(suite.spoiled_solves)
    assert found["gold"] == ("ok", f"{report.tasks} of {report.tasks} score 1")
    right = report.tasks - len(known)
    assert found["spoiled"] == ("ok", f"{right} of {report.tasks} score 0")
    assert found["ids"][0] == found["prompts"][0] == found["limits"][0] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("suite", [parameter(SUITES[name]) for name in COUNTS])
async def test_every_question_that_is_here(suite: Suite) -> None:
    data = None if suite.name == "search_facts" else SHARED_DATA
    report = await check_suite(suite, data=data, tasks=COUNTS[suite.name] if data is None else None)
    assert report.tasks == COUNTS[suite.name]
    held(report, suite)
    if suite.name in SEARCHED:
        assert came_to(report)["train"][0] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("suite", [parameter(SUITES[name]) for name in SEARCHED])
def test_gold_actions_search_for_every_passage_that_leads_to_the_answer(suite: Suite) -> None:
    data = None if suite.name == "search_facts" else SHARED_DATA
    env = make_env(suite.env, **suite.env_args(data))
    for task in env.tasks("eval")[:100]:
        hops = len(task.data["support"])
        actions = [env.gold_action(task, turn) for turn in range(hops + 2)]
        assert hops and all("<search>" in one for one in actions[:hops])
        assert "<answer>" in actions[hops] and actions[hops + 1] is None


@pytest.mark.parametrize("closed", ["", "_closed"])
@pytest.mark.parametrize("name", ROWS)
async def test_a_row_as_the_hub_has_it_is_played(name: str, closed: str, tmp_path) -> None:
    suite = SUITES[name + closed]
    path = tmp_path / suite.rows["eval"].file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(ROWS[name]) + "\n")
    report = await check_suite(replace(suite, train=None), data=tmp_path)
    assert report.tasks == 1
    held(report, replace(suite, spoiled_solves={}))


@pytest.mark.parametrize("suite", [parameter(SUITES["nq"]), parameter(SUITES["nq_closed"])])
async def test_training_rows_among_the_tasks_are_found(suite: Suite, tmp_path) -> None:
    rows = (SHARED_DATA / suite.rows["eval"].file).read_text().splitlines()[:20]
    for name, chosen in (("eval", rows), ("train", rows[7:9])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(chosen) + "\n")
    mixed = replace(suite, rows={"eval": Rows(file="eval.jsonl")}, train=Rows(file="train.jsonl"))
    report = await check_suite(mixed, data=tmp_path, played=False)
    (fault,) = report.faults
    ids = [json.loads(row)["id"] for row in rows[7:9]]
    assert (fault.rule, list(fault.ids)) == ("train", ids)


@pytest.mark.parametrize("name", ["nq", "gaia"])
def test_what_must_be_given_is_asked_for(name: str, tmp_path) -> None:
    suite = SUITES[name]
    file = tmp_path / suite.rows["eval"].file
    file.parent.mkdir()
    file.write_text(json.dumps(ROWS.get(name, {"question": "Who?", "answer": ["Ann"]})) + "\n")
    args = suite.env_args(tmp_path)
    with pytest.raises(RecipeError, match=r"retriever|search"):
        make_env(suite.env, **args)
    assert make_env(suite.env, **args, **suite.given).tasks("eval")
    assert all(f"suite.args.{key}" in suite.notes for key in suite.given)


def test_every_suite_shows_the_scores_of_short_answers() -> None:
    for suite in (*qa.SUITES, *deep_search.SUITES):
        env = make_env(suite.env, **suite.args)
        assert env.rewards == {suite.score: 1.0}
        assert {"f1", "cover_em"} <= {*suite.also}
        assert suite.licence and suite.source and suite.title
        assert suite.args.get("max_turns", 1) == suite.max_turns
        assert all(0.0 < one.value < 1.0 for one in suite.references)


async def test_an_evaluation_says_how_what_is_missing_is_given(tmp_path) -> None:
    path = tmp_path / "nq_open" / "dev.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"id": "q", "question": "who", "answer": ["Ann"]}) + "\n")
    planned = plan_suite(SUITES["nq"], data=tmp_path)
    with pytest.raises(RecipeError, match=r"^nq@1: .* nothing to search.* suite\.args\.KEY=VALUE"):
        await load_suite(planned)
    given = planned.model_copy(update={"args": {**planned.args, **SUITES["nq"].given}})
    loaded = await load_suite(given)
    assert [task.id for task in loaded.tasks] == ["q"]
    await loaded.env.close()

"""Each rule of `check_suite` on rows that break it, and on rows that do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentrl.core.errors import DataError, RecipeError
from agentrl.evals.check import CONTEXT, RULES, CheckReport, check_suite, normalised
from agentrl.evals.suite import Rows, Suite
from agentrl.evals.suites import SUITES, find_suite

OWN = Suite(name="own", title="A suite of a test's", family="games", env="suite_fakes:Quiz")
"""Found by `find_suite` under `test_suites_check:OWN`."""


def quiz(*tasks: tuple[str, str, str, str], **others: Any) -> Suite:
    args = {key: others.pop(key) for key in ("broken", "shaky") if key in others}
    return replace(OWN, args={"tasks": [list(one) for one in tasks], **args}, **others)


def math(folder: Path, rows: list[dict[str, Any]], train: list[dict[str, Any]] | None = None):
    for name, found in (("test", rows), ("train", train or [])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in found))
    return replace(
        SUITES["math500"],
        rows={"eval": Rows(file="test.jsonl")},
        train=Rows(file="train.jsonl") if train else None,
    )


def row(id_: str, problem: str, answer: str, boxed: str = "") -> dict[str, Any]:
    solution = f"So \\boxed{{{boxed or answer}}}."
    return {"unique_id": id_, "problem": problem, "solution": solution, "answer": answer}


def of(report: CheckReport, rule: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.status, one.ids) for one in report.findings if one.rule == rule]


def ok(report: CheckReport) -> set[str]:
    return {one.rule for one in report.findings if one.status == "ok"}


async def test_sound_rows_break_no_rule(tmp_path):
    rows = [row("a", "What is 1 + 1?", "2"), row("b", "What is 1 + 2?", "3")]
    suite = math(tmp_path, rows, [row("c", "What is 1 + 3?", "4")])
    report = await check_suite(suite, data=tmp_path)
    assert report.faults == () and report.tasks == 2 and ok(report) == set(RULES)


async def test_wrong_gold_and_spoiled_answers_that_are_right_are_named(tmp_path):
    rows = [
        row("wrong", "What is 1 + 1?", "2", boxed="3"),
        row("same", "Which f has f(f(n)) = n + 2 - 2?", "f(n)=n"),
        row("right", "What is 1 + 2?", "3"),
    ]
    suite = math(tmp_path, rows)
    report = await check_suite(suite, data=tmp_path)
    assert of(report, "gold") == [("fault", ("wrong",)), ("ok", ())]
    assert of(report, "spoiled") == [("fault", ("same",)), ("ok", ())]
    listed = replace(
        suite, gold_fails={"wrong": "a misprint"}, spoiled_solves={"same": "the same function"}
    )
    report = await check_suite(listed, data=tmp_path)
    assert report.faults == ()
    assert of(report, "gold") == [("ok", ()), ("known", ("wrong",))]
    assert of(report, "spoiled") == [("ok", ()), ("known", ("same",))]


async def test_an_exception_that_is_none_any_more_is_a_fault():
    suite = quiz(("a", "What?", "this", "this"), gold_fails={"a": "once"})
    report = await check_suite(suite)
    assert [(one.rule, one.told, one.ids) for one in report.faults] == [
        ("gold", "listed exceptions that score 1 by now", ("a",))
    ]


async def test_copies_are_noted_and_each_is_played():
    suite = quiz(
        ("a", "Which?", "this", "this"),
        ("b", "Which?", "that", "that"),
        ("c", "Which?", "other", "wrong"),
        ("d", "Where?", "here", "here"),
    )
    report = await check_suite(suite)
    assert of(report, "prompts") == [("note", ("a", "b", "c"))]
    assert of(report, "gold") == [("fault", ("c",)), ("ok", ())]
    assert "spoiled" in ok(report)


async def test_prompts_of_what_starts_programs_are_read_while_it_is_played():
    suite = quiz(
        ("a", "Which?", "this", "this"),
        ("b", "Which?", "that", "that"),
        ("c", "one " * CONTEXT, "here", "here"),
        family="desktop",
    )
    report = await check_suite(suite)
    assert of(report, "prompts") == [("note", ("a", "b"))]
    assert of(report, "limits") == [("fault", ("c",))]
    report = await check_suite(suite, played=False)
    assert of(report, "prompts") == of(report, "limits") == [("skipped", ())]


async def test_ids_that_are_there_twice_are_named():
    suite = quiz(("a", "Which?", "this", "this"), ("a", "Where?", "here", "here"))
    report = await check_suite(suite, tasks=1)
    assert of(report, "ids") == [("fault", ("a",))] and report.tasks == 1


async def test_training_rows_are_found_word_for_word_and_but_for_marks(tmp_path):
    rows = [
        row("exact", "What is 1 + 1?", "2"),
        row("near", "What  is: 1 + 2", "3"),
        row("new", "What is 7?", "7"),
    ]
    train = [row("x", "What is 1 + 1?", "2"), row("y", "what is 1 + 2?", "3")]
    suite = math(tmp_path, rows, train)
    (fault,) = (await check_suite(suite, data=tmp_path, played=False)).faults
    assert (fault.rule, fault.ids) == ("train", ("exact", "near"))
    assert fault.told.endswith("1 word for word, 1 but for marks and case")
    known = replace(suite, in_train={"exact": "asked twice", "near": "asked twice"})
    report = await check_suite(known, data=tmp_path, played=False)
    assert of(report, "train") == [("known", ("exact", "near"))] and not report.faults
    gone = replace(suite, train=Rows(file="gone.jsonl"))
    report = await check_suite(gone, data=tmp_path, played=False)
    assert of(report, "train") == [("skipped", ())]


def test_normalised_text_keeps_letters_and_digits():
    assert normalised("  What is\n$x_1$ + É?") == "what is x 1 é"


async def test_a_prompt_that_leaves_no_room_is_named(tmp_path):
    rows = [row("long", "one " * CONTEXT, "2"), row("short", "What is 1 + 1?", "2")]
    report = await check_suite(math(tmp_path, rows), data=tmp_path, played=False)
    assert of(report, "limits") == [("fault", ("long",))]


async def test_a_row_that_cannot_be_read_is_named_by_file_and_line(tmp_path):
    suite = math(tmp_path, [row("a", "What is 1 + 1?", "2"), {"problem": "What?"}])
    (fault,) = (await check_suite(suite, data=tmp_path)).faults
    assert fault.rule == "rows" and "test.jsonl:2: " in fault.told
    (fault,) = (await check_suite(quiz())).faults
    assert fault.told == "suite_fakes:Quiz has no tasks in split 'eval'"


async def test_a_score_that_no_episode_has_and_lost_episodes_are_faults():
    suite = quiz(("a", "Which?", "this", "this"), ("b", "Where?", "here", "here"))
    report = await check_suite(replace(suite, score="em"))
    assert [one.told for one in report.faults] == ["no episode has a score 'em'"] * 2
    report = await check_suite(
        quiz(("a", "Which?", "this", "this"), ("b", "Where?", "here", "here"), broken="a")
    )
    gold, spoiled = report.faults
    assert gold.ids == spoiled.ids == ("a",) and "the grader is gone" in gold.told


async def test_an_episode_that_was_mended_is_told_and_no_fault():
    report = await check_suite(quiz(("shaky", "Which?", "this", "this"), shaky="shaky"))
    assert of(report, "gold") == [("note", ("shaky",)), ("ok", ())] and not report.faults


async def test_gold_actions_that_cannot_be_read_are_a_fault():
    report = await check_suite(quiz(("a", "Which?", "this", "this</answer> or")))
    told = [one.told for one in report.faults]
    assert "gold actions that the environment could not read" in told


async def test_nothing_is_played_where_it_was_not_asked_for_or_cannot_be():
    suite = quiz(("a", "Which?", "this", "wrong"))
    report = await check_suite(suite, played=False)
    assert of(report, "gold") == of(report, "spoiled") == [("skipped", ())]
    report = await check_suite(replace(suite, unchecked="nobody knows"))
    assert [one.told for one in report.findings if one.rule == "gold"] == ["nobody knows"]


async def test_rows_that_are_not_there_are_the_users_to_mend(tmp_path):
    with pytest.raises(DataError, match=r"suite 'gsm8k': no file .*gsm8k/test\.jsonl; "):
        await check_suite(SUITES["gsm8k"], data=tmp_path)
    with pytest.raises(DataError, match="suite 'tau2_retail' is on no hub: name the folder"):
        await check_suite(SUITES["tau2_retail"])
    only_hub = replace(SUITES["gsm8k"], rows={"eval": Rows(hub="o/n@test")})
    with pytest.raises(DataError, match="read from the hub only"):
        only_hub.env_args(tmp_path)


def test_a_suite_is_found_by_name_version_or_module():
    assert find_suite("gsm8k@1") is SUITES["gsm8k"] and find_suite("test_suites_check:OWN") is OWN
    for name, said in (
        ("gsm8", r"no suite 'gsm8'\. Did you mean 'gsm8k'\?"),
        ("gsm8k@7", "is at version 1, not 7"),
        ("no_module_has_this_name:X", "its module cannot be imported: ModuleNotFoundError"),
        ("test_suites_check:OWM", r"has no 'OWM'\. Did you mean 'OWN'"),
        ("test_suites_check:quiz", "is no agentrl.evals.suite.Suite"),
    ):
        with pytest.raises(RecipeError, match=said):
            find_suite(name)


def test_every_suite_is_whole():
    assert len(SUITES) == len({suite.name for suite in SUITES.values()})
    for suite in SUITES.values():
        assert suite.title and suite.licence and suite.source, suite.name
        assert all(one.hub or one.file for one in suite.rows.values()), suite.name
        assert all("@" in one.hub for one in suite.rows.values() if one.hub), suite.name
        assert suite.samples == 1 or suite.temperature > 0, suite.name
        for one in suite.references:
            assert 0.0 < one.value <= 1.0 and one.source, suite.name

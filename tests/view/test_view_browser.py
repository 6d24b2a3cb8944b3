"""The page in real Chromium: lists, trees, tokens, metrics, two runs, and text that means harm."""

from __future__ import annotations

import base64
import itertools
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from view_folders import (
    BROWSER,
    chromium,
    look,
    sample,
    small_run,
    until,
    watched,
    write_evaluation,
    write_run,
)

from agentrl.core.types import ROOT, Failure, Group, StopReason
from agentrl.testing.trees import chains, tree_of, wide_group
from agentrl.view.page import write_page
from agentrl.view.read import open_source

pytestmark = BROWSER

ARPO = {"type": "arpo", "alpha": 0.5, "beta": 0.2, "threshold": 0.5, "probe_tokens": 20}


@pytest.fixture(scope="module")
def page():
    """One browser for all tests, cut off from every network."""
    with chromium(offline=True) as opened:
        yield opened


@pytest.fixture(autouse=True)
def quiet(page):
    """No test leaves an error, a dialog or a request behind."""
    for kept in (page.errors, page.asked, page.dialogs):
        kept.clear()
    yield
    assert page.errors == [] and page.dialogs == []
    assert [one for one in page.asked if not one.startswith(("file:", "blob:", "about:"))] == []


def written(tmp_path: Path, *folders: Path) -> Path:
    path = tmp_path / "page.html"
    write_page(path, [open_source(folder) for folder in folders])
    return path


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def facts(page, part: str) -> None:
    """Wait until the open trajectory's heading says `part`."""
    until(
        page,
        "(part) => document.querySelector('.trajectory .facts')?.textContent.includes(part)",
        arg=part,
    )


def counted(page) -> str:
    return page.locator("#counts").inner_text()


def test_an_evaluation_opens_with_its_estimates_on_top(page, tmp_path):
    folder = write_evaluation(tmp_path / "ev", [sample("a"), sample("b", score=0.0)])
    (folder / "results.json").write_text(
        '{"suites": [{"suite": "toy@1", "title": "Toys", "score": "correct", "tasks": 2,'
        ' "samples_per_task": 1, "planned": 3, "scored": 2, "missing": 0,'
        ' "failures": {"environment": 1}, "if_failures_were_wrong": 0.333, "estimates":'
        ' {"correct": {"value": 0.5, "low": 0.1, "high": 0.9, "tasks": 2, "method": "wilson"},'
        ' "turns": {"value": 3.5, "low": 3, "high": 4, "tasks": 2, "method": "cluster_t"}}}],'
        ' "provenance": {"agentrl": "9.9", "commit": "abcdef0123456", "python": "3.11"}}'
    )
    look(page, written(tmp_path, folder))
    card = page.locator(".card").inner_text()
    assert "Toys" in card and "lost: 1 environment" in card and "33.3 % if those were wrong" in card
    assert texts(page, ".estimates td:nth-child(2)") == ["50 %", "3.5"]
    assert texts(page, ".estimates td:nth-child(4)") == ["10 % to 90 %", "3 to 4"]
    assert "agentrl 9.9 at abcdef0123" in page.locator(".source > .pairs").inner_text()
    # The interval's line reaches from a tenth to nine tenths of the axis.
    box = page.locator(".estimates .main .interval").bounding_box()
    axis = page.locator(".estimates .main .grid").bounding_box()
    assert box["width"] / axis["width"] == pytest.approx(0.8, abs=0.02)


def test_filters_leave_what_they_say(page, tmp_path):
    groups = [chains([1.0, 0.0]), chains([1.0, 1.0], turns=3), chains([0.0, 0.0], turns=2)]
    groups = [Group(f"g{i}", f"task-{i}", one.trees) for i, one in enumerate(groups)]
    for group in groups:
        for tree in group.trees:
            last = tree.turns[-1]
            tree.turns[-1] = type(last)(
                action_ids=last.action_ids,
                logprobs=last.logprobs,
                entropies=last.entropies,
                reward=last.reward,
                rewards={"em": last.reward},
            )
    file = written(tmp_path, write_run(tmp_path / "run", groups))
    look(page, file, "/trajectories?unit=rows")
    assert counted(page) == "6 trajectories · 3 groups"
    page.get_by_role("button", name="wrong", exact=True).click()
    until(page, "document.getElementById('counts').textContent.startsWith('3 of 6')")
    page.get_by_label("groups", exact=True).select_option("mixed")
    until(page, "document.getElementById('counts').textContent.startsWith('1 of 6')")
    page.get_by_role("button", name="clear").click()
    until(page, "document.getElementById('counts').textContent.startsWith('6 ')")
    page.get_by_text("More filters").click()
    page.get_by_label("least turns").fill("2")
    until(page, "document.getElementById('counts').textContent.startsWith('4 of 6')")
    page.get_by_label("most turns").fill("2")
    until(page, "document.getElementById('counts').textContent.startsWith('2 of 6')")
    assert "tmin=2" in page.url and "tmax=2" in page.url
    page.reload()
    page.wait_for_selector('html[data-ready="1"]')
    assert counted(page).startswith("2 of 6"), "the address keeps the filters"
    page.get_by_label("least return").count()
    look(page, file, "/trajectories?unit=rows&smin=0.5&sort=turns&down=1")
    assert counted(page).startswith("3 of 6")
    assert [one.split(" ")[0] for one in texts(page, ".item .meta")] == ["3", "3", "1"]
    look(page, file, "/trajectories?q=nowhere+to+be+found")
    assert "Nothing passes" in page.locator(".space").inner_text()


def test_a_search_finds_text_in_prompts_actions_calls_observations_and_answers(page, tmp_path):
    folder = write_evaluation(
        tmp_path / "ev",
        [
            sample("one", prompt="about Zebras"),
            sample("two", turns=[("the GIRAFFE", "x"), ("y", "z")]),
            sample("three", turns=[("x", "an okapi"), ("y", "z")]),
            sample("four", arguments={"animal": "tapir"}),
        ],
    )
    file = written(tmp_path, folder)
    for word, task in {"zebra": "one", "giraffe": "two", "okapi": "three", "tapir": "four"}.items():
        look(page, file, f"/trajectories?q={word}")
        assert counted(page) == "1 of 4 trajectories", word
        assert task in texts(page, ".item .meta")[0]
        assert [one.lower() for one in texts(page, "mark")][:1] == [word]
    look(page, file, "/trajectories?q=42")
    assert counted(page) == "4 trajectories", "the answers"


def test_a_tree_of_64_leaves_is_drawn_whole_and_can_be_walked(page, tmp_path):
    group = wide_group(0, leaves=64, turns=5, trees=2, name="big")
    folder = write_run(tmp_path / "run", [group], sampler=ARPO)
    file = written(tmp_path, folder)
    look(page, file, "/trajectories")
    assert page.locator(".tree .leaf").count() == 64
    nodes = sum(len(tree.turns) for tree in group.trees)
    assert page.locator(".tree rect.turn").count() == nodes
    places = page.locator(".tree .leaf .return").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect().y)"
    )
    gaps = [below - above for above, below in itertools.pairwise(sorted(places))]
    assert min(gaps) >= 14.5, "every leaf has a line of its own"
    last = max(group.trees[1].leaves, key=group.trees[1].path)
    page.locator(f'.tree [data-leaf="1/{last}"]').click()
    facts(page, "64 of 64")
    assert page.locator(".tree .edge.on").count() == 5
    page.keyboard.press("h")
    facts(page, "63 of 64")
    wide = page.locator("svg.tree").bounding_box()["width"]
    page.get_by_role("button", name="fit").click()
    assert page.locator("svg.tree").bounding_box()["width"] < wide
    page.get_by_role("button", name="+", exact=True).click()
    for colour in ("return below", "entropy", "version", "seconds", "credit"):
        page.locator(".forest").get_by_role("button", name=colour, exact=True).click()
        assert page.locator(".tree .leaf").count() == 64


def test_a_branch_point_says_the_entropy_that_caused_it(page, tmp_path):
    tree = tree_of([ROOT, 0, 0, 1, 2], {3: 1.0}, task_id="t")
    # The first action's entropy is 0.25 everywhere; make the second one's 0.75.
    turn = tree.turns[1]
    tree.turns[1] = type(turn)(
        action_ids=turn.action_ids,
        logprobs=turn.logprobs,
        entropies=turn.entropies * 3,
        observation_ids=turn.observation_ids,
    )
    folder = write_run(tmp_path / "run", [Group("g", "t", (tree,))], sampler=ARPO)
    look(page, written(tmp_path, folder), "/trajectories")
    assert page.locator(".tree .why").all_text_contents() == ["H 0.75"]
    page.locator(".tree .fork").hover()
    said = page.locator("#tip").inner_text()
    # P = 0.5 + 0.2 * (0.75 - 0.25) / ln 768 = 0.51505
    assert "2 ways" in said and "0.75 nats" in said and "+0.5" in said and "P = 0.5151" in said
    assert "way 1 of 2" in page.locator(".turn .branched").inner_text()
    page.locator(".turn .side b").nth(2).hover()
    assert "mean entropy\n0.75 nats" in page.locator("#tip").inner_text()


def test_credit_colours_what_was_trained_and_failures_are_crosses(page, tmp_path):
    stops = {1: StopReason.ENV_ERROR}
    trees = (
        tree_of([ROOT, ROOT], {0: 1.0}, stops=stops, task_id="t"),
        tree_of([ROOT], {}, task_id="t"),
    )
    trees[1].failures.append(Failure(ROOT, StopReason.ENGINE_ERROR, "it hung up"))
    folder = write_run(tmp_path / "run", [Group("g", "t", trees)])
    look(page, written(tmp_path, folder), "/trajectories?colour=credit")
    fills = page.evaluate(
        "[...document.querySelectorAll('.tree rect.turn')].map((e) => e.style.fill)"
    )
    assert "--positive" in fills[0] and fills[1] == "none" and "--negative" in fills[2]
    assert page.locator(".tree rect.untrained").count() == 1
    assert page.locator(".tree .leaf .cross").count() == 1
    assert "env error" in page.locator(".tree").text_content()
    page.locator(".tree .cross").last.hover()
    assert "it hung up" in page.locator("#tip").inner_text()


def test_tokens_show_mask_probability_entropy_credit_and_version(page, tmp_path):
    look(page, written(tmp_path, small_run(tmp_path / "run")), "/trajectories?view=tokens")
    assert page.locator(".tokens.action .token").count() == 3 * 24
    assert page.locator(".tokens.observation .token").count() == 3 * 72
    first = page.locator(".tokens.action .token").first
    first.hover()
    said = page.locator("#tip").inner_text()
    for word in ("mask", "trained", "log-probability", "entropy", "nats", "credit", "version"):
        assert word in said, said
    page.locator(".tokens.observation .token").first.hover()
    assert "not trained: an observation" in page.locator("#tip").inner_text()
    seen = set()
    for name in ("mask", "log-probability", "entropy", "credit", "version"):
        page.locator(".tokens-bar").get_by_role("button", name=name, exact=True).click()
        until(
            page,
            "(name) => document.querySelector('.tokens-bar .on').textContent === name",
            arg=name,
        )
        seen.add(first.get_attribute("style"))
        assert page.locator(".tokens.observation .token").first.get_attribute("style") is None
    assert len(seen) >= 4, "every scale has its colours"


def test_metrics_are_plotted_smoothed_and_overlaid(page, tmp_path):
    folders = [small_run(tmp_path / name) for name in ("one", "two")]
    file = written(tmp_path, *folders)
    look(page, file, "/metrics")
    reward = page.locator('[data-metric="rollout/reward_mean"] .line')
    assert reward.count() == 2
    before = reward.first.get_attribute("d")
    page.get_by_label("smoothing").fill("0.9")
    assert page.locator('[data-metric="rollout/reward_mean"] .raw').count() == 2
    assert reward.first.get_attribute("d") != before
    page.get_by_text("log scale").click()
    page.get_by_label("Find a metric").fill("loss")
    assert page.locator("figure").count() == 1
    page.locator('[data-metric="train/loss"] svg').hover()
    assert "one" in page.locator("#tip").inner_text()
    page.locator('[data-metric="train/loss"] svg').click()
    assert page.locator(".big-plot svg").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".big-plot svg").count() == 0


def test_two_evaluations_are_matched_by_task(page, tmp_path):
    one = write_evaluation(tmp_path / "one", [sample("a"), sample("b", score=0.0), sample("c")])
    two = write_evaluation(tmp_path / "two", [sample("a"), sample("b"), sample("d")])
    look(page, written(tmp_path, one, two), "/compare")
    assert "2 tasks in both" in page.locator(".summary").inner_text()
    assert "B above A on 1, below on 0, equal on 1" in counted(page)
    assert len(texts(page, ".item")) == 4
    page.get_by_role("button", name="only where they differ").click()
    until(page, "document.querySelectorAll('.item').length === 1")
    assert "0 → 1" in texts(page, ".item .value")[0]
    page.locator(".item").click()
    until(page, "document.querySelectorAll('.side-of .trajectory').length === 2")
    assert [one.split("\n")[0] for one in texts(page, ".side-of .facts")] == ["wrong", "right"]


def test_the_keyboard_walks_the_list_and_the_address_leads_back(page, tmp_path):
    file = written(tmp_path, small_run(tmp_path / "run"))
    look(page, file, "/trajectories")
    assert "g=0" in page.url
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("l")
    page.keyboard.press("n")
    page.keyboard.press("t")
    page.wait_for_selector(".tokens")
    assert "g=1" in page.url and "r=5" in page.url and "n=0" in page.url
    address = page.url
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("dialog kbd").count() > 8
    page.keyboard.press("Escape")
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".tokens")
    assert page.locator(".aimed b").first.inner_text() == "turn 1"
    assert "2 of 4" in page.locator(".trajectory .facts").inner_text()


HOSTILE = {
    "script": "</script><script>window.hurt=1;alert(1)</script>",
    "image": "<img src=x onerror='window.hurt=1;alert(2)'>",
    "comment": "<!--<script>window.hurt=1</script>",
    "svg": "<svg/onload=alert(3)>",
    "link": "javascript:alert(4)",
    "bidi": "a\u202egpj.exe\u2066\u200b",
    "surrogate": "\ud800 and \udfff",
    "control": "bell\x07 escape\x1b[31m nul\x00",
    "arabic": "السلام عليكم 123",
}


def test_hostile_text_is_shown_and_does_nothing(page, tmp_path):
    samples = [
        sample(f"{name} {text}", prompt=text, turns=[(text, text)], arguments={text: text})
        for name, text in HOSTILE.items()
    ]
    folder = write_evaluation(tmp_path / "ev", samples)
    (folder / "results.json").write_text('{"suites": [{"suite": "<b>x</b>", "estimates": {}}]}')
    for file in (written(tmp_path, folder, folder),):
        for room in ("overview", "trajectories", "trajectories?view=tokens", "compare", "metrics"):
            look(page, file, f"/{room}")
        for at in range(len(HOSTILE)):
            look(page, file, f"/trajectories?g={at}")
            shown = page.locator(".turn.prompt .text").inner_text()
            page.locator(".tree rect.turn").hover()
            if "<" in shown:
                assert shown.strip() in HOSTILE.values()
        assert page.evaluate("window.hurt") is None
        look(page, file, f"/trajectories?g={list(HOSTILE).index('bidi')}")
        assert texts(page, ".turn.prompt .odd") == ["RLO", "LRI", "ZWSP"]
        look(page, file, f"/trajectories?g={list(HOSTILE).index('surrogate')}")
        assert texts(page, ".turn.prompt .odd") == ["D800", "DFFF"]
        look(page, file, f"/trajectories?g={list(HOSTILE).index('control')}")
        assert texts(page, ".turn.prompt .odd") == ["0007", "ESC", "NUL"]


def test_an_address_cannot_smuggle_a_program_in(page, tmp_path):
    file = written(tmp_path, small_run(tmp_path / "run"))
    look(page, file, "/trajectories?q=<img src=x onerror=window.hurt=1>&n=%22]&sort=constructor")
    look(page, file, "/metrics?big=__proto__&smooth=x&mq=<svg onload=window.hurt=1>")
    look(page, file, "/nowhere?g=999&r=-1&__proto__=1")
    look(page, file, "/trajectories?g=999&r=abc&s=7&part=99&colour=x&view=y")
    assert page.evaluate("window.hurt") is None


def test_a_line_of_a_megabyte_is_clipped_and_the_rest_comes_when_asked(page, tmp_path):
    long = "x" * 1_000_000 + "THE END"
    folder = write_evaluation(tmp_path / "ev", [sample("a", turns=[("go", long)])])
    file = written(tmp_path, folder)
    started = time.monotonic()
    look(page, file, "/trajectories?g=0")
    assert time.monotonic() - started < 10
    block = page.locator(".text.observation")
    assert len(block.inner_text()) < 4000
    assert "more of 997,007 characters" in block.inner_text()
    block.get_by_role("button").click()
    assert 60_000 < len(block.inner_text()) < 70_000


def test_damage_is_told_in_the_page(page, tmp_path):
    folder = small_run(tmp_path / "run")
    whole = (folder / "trees" / "iteration-000001.parquet").read_bytes()
    (folder / "trees" / "iteration-000002.parquet").write_bytes(whole[:-9])
    file = written(tmp_path, folder)
    look(page, file)
    assert "trees/iteration-000002.parquet" in page.locator(".notes").inner_text()
    # A file of the viewer that was itself cut says so, and what is whole is still shown.
    text = file.read_text()
    cut = tmp_path / "cut.html"
    cut.write_text(text[: text.index('id="0/turns/0"')])
    look(page, cut, "/trajectories?g=0")
    assert "could not be shown" in page.locator(".detail").inner_text()
    assert page.locator(".item").count() == 3


def test_an_empty_evaluation_has_an_empty_page(page, tmp_path):
    folder = write_evaluation(tmp_path / "ev", [])
    (folder / "samples.jsonl").unlink()
    file = written(tmp_path, folder)
    look(page, file)
    assert "no sample has finished" in page.locator(".notes").inner_text()
    look(page, file, "/trajectories")
    assert "There are no trajectories here" in page.locator(".space").inner_text()


def test_pictures_are_shown_beside_the_text_that_names_them(page, tmp_path):
    one = "a" * 64
    folder = write_evaluation(tmp_path / "ev", [sample("a", turns=[("look", f"<|image {one}|>")])])
    (folder / "images").mkdir()
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    (folder / "images" / f"{one}.png").write_bytes(base64.b64decode(dot + "RU5ErkJggg=="))
    look(page, written(tmp_path, folder), "/trajectories?g=0")
    until(page, "document.querySelector('.pictures img')?.naturalWidth === 1")
    assert page.locator(".pictures img").count() == 1


def test_ten_thousand_trajectories_are_listed_a_screen_at_a_time(page, tmp_path):
    groups = [
        wide_group(i, leaves=8, trees=2, turns=2, tokens=4, name=f"t{i}") for i in range(1250)
    ]
    file = written(tmp_path, write_run(tmp_path / "run", groups))
    look(page, file, "/trajectories?unit=rows")
    assert counted(page).startswith("10,000 trajectories · 1,250 groups")
    assert page.locator(".item").count() < 60
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 5000, "a bound for a busy machine; benchmarks/viewer.py has the figures"
    page.locator(".scroller").first.evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    until(page, "document.querySelector('.item:last-child').style.top === '459954px'")
    page.locator(".item").last.click()
    assert "r=9999" in page.url
    page.get_by_role("button", name="right", exact=True).first.click()
    until(page, "/^[0-9],[0-9]+ of 10,000/.test(document.getElementById('counts').textContent)")


def test_the_command_serves_the_page_to_who_has_the_address(page, tmp_path):
    folder = small_run(tmp_path / "run")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "agentrl", "view", str(folder), "--no-browser"]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    try:
        address = server.stderr.readline().split()[0]
        assert address.startswith(f"http://127.0.0.1:{port}/")
        fresh = watched(page.context.browser)
        for _ in range(100):
            try:
                fresh.goto(f"{address}#/trajectories?view=tokens")
                break
            except Exception:  # the address is told just before the server listens
                time.sleep(0.1)
        fresh.wait_for_selector(".tokens .token")
        assert counted(fresh) == "12 trajectories · 3 groups"
        own = [one for one in fresh.asked if not one.endswith("/favicon.ico")]
        assert own and all(one.startswith(address) for one in own)
        assert [error for error in fresh.errors if "favicon" not in error] == []
        fresh.context.close()
    finally:
        server.terminate()
        server.wait(timeout=20)
        server.stderr.close()


def test_segments_of_a_turn_are_told_from_turns(page, tmp_path):
    # One turn of two segments, of which the second was sampled twice.
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, task_id="t")
    tree.turns[0] = replace(tree.turns[0], goes_on=True, observation_ids=tree.prompt_ids[:0])
    file = written(tmp_path, write_run(tmp_path / "run", [Group("g", "t", (tree,))]))
    look(page, file, "/trajectories?unit=rows")
    assert [one.split(" ")[0] for one in texts(page, ".item .meta")] == ["1", "1"], "turns"
    assert texts(page, ".turns .turn .side b") == ["prompt", "segment 1", "segment 2"]
    assert "segment 2" in page.locator("svg.tree").text_content()

"""MiniWoB++ without a browser: actions are read strictly, pages survive being written as text."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import RecipeError, SetupError
from agentrl.core.registry import make_env
from agentrl.core.spoil import spoil
from agentrl.envs.miniwob import env as env_module
from agentrl.envs.miniwob.actions import (
    FORMS,
    MAX_TEXT,
    Click,
    Drag,
    Hover,
    MalformedError,
    Point,
    Press,
    Ref,
    Scroll,
    Select,
    Type,
    Wait,
    parse,
)
from agentrl.envs.miniwob.catalogue import DEFAULT_PAGES, OTHER_PAGES, PAGES
from agentrl.envs.miniwob.experts import EXPERTS, act
from agentrl.envs.miniwob.view import page_text, pages_of, task_of

READ = {
    "click(3)": Click(Ref(3)),
    " click( 3 )\n": Click(Ref(3)),
    "click_xy(80, 120.5)": Click(Point(80.0, 120.5)),
    "double_click((1, 2))": Click(Point(1.0, 2.0), count=2),
    "hover(12)": Hover(Ref(12)),
    "drag(3, (80, 120))": Drag(Ref(3), Point(80.0, 120.0)),
    "drag((1, 2), 5)": Drag(Point(1.0, 2.0), Ref(5)),
    'type(3, "a \\"b\\" \\\\ (c), d")': Type('a "b" \\ (c), d', Ref(3)),
    'type("ls\\n")': Type("ls\n"),
    'press("Enter")': Press(("Enter",)),
    'press("Control+a")': Press(("Control", "a")),
    'press("Control+Shift+ArrowLeft")': Press(("Control", "Shift", "ArrowLeft")),
    'press("+")': Press(("+",)),
    'select(3, "one", "two")': Select(Ref(3), ("one", "two")),
    "scroll(3, -100)": Scroll(Ref(3), -100),
    "wait()": Wait(),
    "wait(2000)": Wait(2000),
    "<think>click(4)?</think>click(3)": Click(Ref(3)),
    "the template opened it</think>\n\nclick(3)": Click(Ref(3)),
}

REFUSED = {
    "": "no action",
    "hello": "no action",
    "click(3) click(4)": "click is written click",
    "click(3); click(4)": "click is written",
    "I click(3)": "no action",
    "clik(3)": "Did you mean 'click'",
    "core.endEpisode(1)": "no action",
    "eval(1)": "there is no action 'eval'",
    "goto(1)": "there is no action 'goto'",
    "click(0)": "click is written",
    "click(1.5)": "click is written",
    "click(-1)": "click is written",
    "click(3,)": "click is written",
    "click(,3)": "click is written",
    "click((1, 2))": "click is written",
    "click(__import__)": "click is written",
    'click("3")': "click is written",
    "type(3, 'text')": "type is written",
    'type(3, "a", "b")': "type is written",
    'type(3, "\\x41")': "double quotes",
    'type(3, "\\u0007")': "printable",
    f'type(3, "{"a" * (MAX_TEXT + 1)}")': "at most",
    "click(" + "(" * 3000 + ")": "click is written",
    "click(" + "9" * 5000 + ")": "4000 are allowed",
    'press("Control+t")': "command to a browser",
    'press("Control+l")': "command to a browser",
    'press("Alt+ArrowLeft")': "only Control and Shift",
    'press("Control+Control+a")': "only Control and Shift",
    'press("F12")': "no key 'F12'",
    'press("enter")': "Did you mean 'Enter'",
    'press("")': "no key",
    "select(3)": "select is written",
    "scroll(3, 1e9)": "scroll is written",
    "scroll(3, 99999)": "from -2000 to 2000",
    "wait(0)": "from 1 to 10000",
    "wait(99999)": "from 1 to 10000",
    "<think>click(3)": "no action",
}


@pytest.mark.parametrize(("text", "action"), READ.items(), ids=list(READ))
def test_a_well_formed_action_is_read(text, action):
    assert parse(text) == action


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=[one[:40] for one in REFUSED])
def test_anything_else_is_refused_with_the_reason(text, why):
    with pytest.raises(MalformedError) as caught:
        parse(text)
    assert why in str(caught.value)


@given(st.text(max_size=80))
def test_no_text_makes_the_parser_fail_in_another_way(text):
    for call in (text, f"click({text})", f'type(3, "{text}")', f'press("{text}")'):
        try:
            parse(call)
        except MalformedError as error:
            assert str(error)


@pytest.mark.parametrize("action", [one for one in READ if "think" not in one])
def test_a_spoiled_action_is_none(action):
    with pytest.raises(MalformedError):
        parse(spoil(action))


def test_every_action_is_shown_in_a_form_that_is_read():
    for name, form in FORMS.items():
        assert parse(form.split(" or ")[0].split(", where")[0]) is not None, name


def node(**changes):
    plain = {"ref": 1, "depth": 0, "tag": "button", "id": "", "classes": [], "looks": {}}
    return plain | {"flags": [], "box": [10, 20, 40, 30], "text": ""} | changes


TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)


@given(TEXTS, TEXTS, st.sampled_from(["center", "box"]), st.lists(TEXTS, max_size=3))
def test_a_page_survives_being_written_and_read(text, value, position, options):
    shown = [
        node(id="go", classes=["a", "b-c"], text=text, value=value, flags=["focused", "checked"]),
        node(ref=2, depth=1, tag="select", value=value, options=options, looks={"fill": value}),
        {"depth": 2, "tag": "", "text": text},
    ]
    written = page_text(shown, position)
    assert "<" not in written
    ((first, second, piece),) = pages_of([f"<|im_start|>user\n{written}"])
    assert (first.ref, first.tag, first.id, first.classes) == (1, "button", "go", ("a", "b-c"))
    assert (first.text, first.value, first.flags) == (text, value, ("focused", "checked"))
    assert (first.x, first.y) == (30, 35)
    assert (second.depth, second.options, second.looks) == (1, tuple(options), {"fill": value})
    assert (piece.ref, piece.depth, piece.text) == (0, 2, text)


def test_a_line_is_what_a_policy_reads():
    lines = page_text(
        [
            node(ref=4, depth=2, tag="input", id="tt", value="a", flags=["focused"]),
            node(ref=5, tag="button", classes=["odd"], text="Odd"),
        ],
        "none",
    )
    assert lines == 'Page:\n  [4] input#tt value="a" focused\n[5] button.odd "Odd"'


def test_the_task_is_found_in_a_prompt_and_a_page_in_later_texts():
    seen = ["<|im_start|>user\nhow\n\nTask: Click x.\n\nPage:\n[1] button (1, 2)", "error: no."]
    assert task_of(seen) == "Click x."
    assert [[one.ref for one in page] for page in pages_of(seen)] == [[1]]


def test_experts_stand_for_the_default_pages_and_give_up_on_what_they_do_not_know():
    assert set(EXPERTS) == set(DEFAULT_PAGES)
    assert len(DEFAULT_PAGES) >= 60
    assert len(PAGES) == len(DEFAULT_PAGES) + len(OTHER_PAGES) == 130
    assert act("click-test", ["\nTask: x\n\nPage:\n[1] svg (1, 1)"]) is None
    assert act("click-test", []) is None
    assert act("tic-tac-toe", ["\nTask: x\n\nPage:\n[1] svg (1, 1)"]) is None


def test_tasks_are_pages_with_seeds_that_the_splits_do_not_share():
    env = make_env("miniwob/tasks", pages=["click-test", "enter-text"], train_seeds=3, eval_seeds=2)
    train = [(task.id, dict(task.data)) for task in env.tasks("train")]
    assert train[:2] == [
        ("click-test/1000000", {"page": "click-test", "seed": 1000000}),
        ("enter-text/1000000", {"page": "enter-text", "seed": 1000000}),
    ]
    assert [task.id for task in env.tasks("eval")] == [
        *("click-test/0", "enter-text/0", "click-test/1", "enter-text/1")
    ]
    seeds = {split: {task.data["seed"] for task in env.tasks(split)} for split in ("train", "eval")}
    assert not seeds["train"] & seeds["eval"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pages": ["click-tset"]}, "Did you mean 'click-test"),
        ({"pages": []}, "pages: at least 1"),
        ({"max_turns": 0}, "max_turns: at least 1"),
        ({"eval_seeds": 1_000_001}, "at most 1000000"),
        ({"seconds_per_turn": 0}, "must be above 0"),
        ({"observation": "html"}, "observation"),
        ({"reward": "sparse"}, "reward"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        make_env("miniwob/tasks", **settings)


async def test_a_machine_without_the_pages_is_told_how_to_get_them(monkeypatch):
    env_module._folder.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    env = make_env("miniwob/tasks")
    with pytest.raises(SetupError, match=r'pip install "agentrl\[miniwob\]" && apt-get install'):
        await env.reset(env.tasks("eval")[0], seed=0)
    env_module._folder.cache_clear()


async def test_a_machine_without_playwright_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(env_module, "_address", lambda page: "file:///none.html")
    monkeypatch.setitem(sys.modules, "playwright.async_api", None)
    env = make_env("miniwob/tasks", max_pages=1)
    with pytest.raises(SetupError, match=r'playwright.*pip install "agentrl\[miniwob\]"'):
        await env.reset(env.tasks("eval")[0], seed=0)

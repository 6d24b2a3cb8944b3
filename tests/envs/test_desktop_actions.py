"""The three ways to write an action at a computer: read, refused, and written back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.computer import ACTION_TYPES, ComputerAction, checked
from agentrl.core.errors import ToolError
from agentrl.envs.desktop.actions import Computer13, Pyautogui, ToolCalls
from agentrl.envs.desktop.events import Point, events_of

place = st.integers(0, 4000)
point = st.fixed_dictionaries({"x": place, "y": place})
element = st.fixed_dictionaries({"element": st.integers(0, 500)})
key = st.sampled_from(["enter", "a", "ctrl", "f2", "'", "\\"])
button = st.sampled_from(["left", "middle", "right"])
text = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40)


def action(types, where):
    kinds = {
        "MOVE_TO": where,
        "CLICK": st.one_of(
            st.just({}), where, st.fixed_dictionaries({"button": button, "num_clicks": st.just(2)})
        ),
        "MOUSE_DOWN": st.fixed_dictionaries({"button": button}),
        "RIGHT_CLICK": where,
        "DOUBLE_CLICK": where,
        "DRAG_TO": where,
        "SCROLL": st.fixed_dictionaries({"dy": st.integers(1, 50)}),
        "TYPING": st.fixed_dictionaries({"text": text}),
        "PRESS": st.fixed_dictionaries({"key": key}),
        "KEY_DOWN": st.fixed_dictionaries({"key": key}),
        "HOTKEY": st.fixed_dictionaries({"keys": st.lists(key, min_size=1, max_size=6)}),
        "WAIT": st.fixed_dictionaries({"seconds": st.floats(0, 10)}),
        "DONE": st.just({}),
        "FAIL": st.just({}),
    }
    return st.sampled_from(types).flatmap(
        lambda name: kinds[name].map(lambda given: ComputerAction(name, given))
    )


EVERY = [name for name in ACTION_TYPES if name not in ("MOUSE_UP", "KEY_UP")]
# Of these pyautogui has a call with the same words; its other clicks are read as CLICK.
SAME = [name for name in EVERY if name not in ("RIGHT_CLICK", "DOUBLE_CLICK", "CLICK")]


@settings(max_examples=40, deadline=None)
@given(action(EVERY, st.one_of(point, element)))
def test_what_computer_13_writes_it_reads(one):
    assert Computer13().read(Computer13().write(one)) == (one,)
    as_json = json.dumps({"action_type": one.type, "parameters": dict(one.parameters)})
    assert Computer13().read(f"```json\n{as_json}\n```") == (one,)


@settings(max_examples=40, deadline=None)
@given(action(EVERY, st.one_of(point, element)))
def test_what_tool_calls_write_they_read(one):
    if one.type == "TYPING" and ("<" in one.parameters["text"] or not one.parameters["text"]):
        return
    assert ToolCalls().read(ToolCalls().write(one)) == (one,)


@settings(max_examples=40, deadline=None)
@given(action(SAME, point))
def test_what_pyautogui_writes_it_reads(one):
    assert Pyautogui().read(Pyautogui().write(one)) == (one,)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pyautogui.click(3, 4)", [("CLICK", {"x": 3, "y": 4, "button": "left", "num_clicks": 1})]),
        (
            "import pyautogui; pyautogui.rightClick(x=3, y=4.6)",
            [("CLICK", {"x": 3, "y": 5, "button": "right", "num_clicks": 1})],
        ),
        (
            "pyautogui.tripleClick()",
            [("CLICK", {"button": "left", "num_clicks": 3})],
        ),
        (
            "pyautogui.scroll(-3, x=1, y=2)",
            [("MOVE_TO", {"x": 1, "y": 2}), ("SCROLL", {"dy": -3})],
        ),
        ("pyautogui.press('down', presses=2)", [("PRESS", {"key": "down"})] * 2),
        ("pyautogui.press(['a', 'b'])", [("PRESS", {"key": "a"}), ("PRESS", {"key": "b"})]),
        ("pyautogui.write('<\\n', interval=0.1)", [("TYPING", {"text": "<\n"})]),
        (
            "pyautogui.hotkey('ctrl', 's')\nDONE",
            [("HOTKEY", {"keys": ["ctrl", "s"]}), ("DONE", {})],
        ),
        ("time.sleep(0.5)", [("WAIT", {"seconds": 0.5})]),
        (
            "pyautogui.mouseDown(5, 6, button='right')",
            [("MOVE_TO", {"x": 5, "y": 6}), ("MOUSE_DOWN", {"button": "right"})],
        ),
    ],
)
def test_pyautogui_calls_are_the_actions_that_they_name(code, expected):
    found = Pyautogui().read(code)
    assert [(one.type, dict(one.parameters)) for one in found] == expected


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('touch /tmp/owned')",
        "pyautogui.click(*[1, 2])",
        "pyautogui.write(open('/etc/passwd').read())",
        "pyautogui.click(x=1 + 1, y=2)",
        "for i in range(9): pyautogui.press('a')",
        "x = 1",
        "pyautogui.alert('hello')",
        "os.system('ls')",
        "pyautogui.click(1)",
        "pyautogui.click(1, 2, 3, 4, 'left', 6, 7)",
        "pyautogui.press('a', presses=10**9)",
        "pyautogui.click(-1, 5)",
        "(" * 5000,
        "\x00",
        "DONE\npyautogui.click(1, 2)",
        "lambda: 0",
        "pyautogui.write(1)",
    ],
)
def test_anything_but_literal_calls_is_refused_and_nothing_is_run(code):
    with pytest.raises(ToolError):
        Pyautogui().read(code)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "CLICK|no action"),
        ("", "no action was found"),
        ('{"action_type": "CLIK"}', "Did you mean 'CLICK'"),
        ('CLICK {"x": 3}', "needs both x and y"),
        ('CLICK {"x": 3, "y": 4, "element": 1}', "not both"),
        ("MOVE_TO", "needs x and y, or an element"),
        ('CLICK {"z": 3}', "has no argument 'z'"),
        ('CLICK {"num_clicks": 99}', "num_clicks"),
        ('TYPING {"text": 4}', "text"),
        ("TYPING", "needs the argument 'text'"),
        ('PRESS {"key": ""}', "key"),
        ('SCROLL {"dy": 100000}', "dy"),
        ('{"action_type": "CLICK", "parameters": [1]}', "parameters"),
        ('{"action_type": "CLICK", "parameters": {}, "x": 2}', "parameters"),
        ("[" * 100_00, "JSON"),
        ("DONE\nDONE", "ends the task"),
        ("WAIT\n" * 40, "40 actions"),
        ("x" * 30_000, "30000 characters"),
    ],
)
def test_a_mistake_is_told_in_words_for_the_policy(text, said):
    with pytest.raises(ToolError, match=said):
        Computer13().read(text)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_a_reader(text):
    for vocabulary in (Computer13(), Pyautogui(), ToolCalls()):
        try:
            assert vocabulary.read(text)
        except ToolError as error:
            assert str(error)


def test_a_thought_before_the_action_does_not_count():
    text = "<think>CLICK here? DONE</think>\n" + 'PRESS {"key": "enter"}'
    assert Computer13().read(text) == (ComputerAction("PRESS", {"key": "enter"}),)


def test_a_drag_goes_over_the_way_and_a_shortcut_is_released_in_reverse():
    drag = events_of(checked("DRAG_TO", {"x": 80, "y": 40}), None)
    assert drag[0] == ["button", 1, True] and drag[-1] == ["button", 1, False]
    assert [one[1:3] for one in drag if one[0] == "glide"] == [[80, 40]] * 8
    keys = events_of(checked("HOTKEY", {"keys": ["ctrl", "s"]}), None)
    assert [one[1:] for one in keys if one[0] == "key"] == [
        ["ctrl", True],
        ["s", True],
        ["s", False],
        ["ctrl", False],
    ]
    click = events_of(checked("CLICK", {"element": 3, "num_clicks": 2}), Point(7, 9))
    assert click[0] == ["move", 7, 9]
    assert [one[2] for one in click if one[0] == "button"] == [True, False, True, False]
    assert (
        events_of(checked("SCROLL", {"dy": -2}), None)
        == [
            ["button", 5, True],
            ["button", 5, False],
        ]
        * 2
    )

"""Three ways to write an action (computer_13, pyautogui, tool calls), read into one type."""

from __future__ import annotations

import ast
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from agentrl.core.computer import ACTION_TYPES, ComputerAction, ComputerTools, checked
from agentrl.core.errors import ToolError
from agentrl.core.formats import JsonFormat

VocabularyName: TypeAlias = Literal["computer_13", "pyautogui", "tools"]

MAX_CHARS = 20_000
MAX_ACTIONS = 32

_THINK = re.compile(r"\A(?:\s*<think>)?.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z_0-9]*\n(.*?)```", re.DOTALL)
_LINE = re.compile(r"([A-Za-z_0-9]{1,40})\s*(\{.*\})?")


class Vocabulary(ABC):
    """One way to write actions."""

    @abstractmethod
    def instructions(self, *, elements: bool) -> str:
        """How to write them; `elements` says whether the screen comes with element numbers."""

    @abstractmethod
    def write(self, action: ComputerAction) -> str:
        """The text of an action, which `read` reads back."""

    @abstractmethod
    def _read(self, text: str) -> Sequence[ComputerAction]: ...

    def read(self, text: str) -> tuple[ComputerAction, ...]:
        """The actions of a policy's text: at least one, `DONE` and `FAIL` only at the end.

        Raises:
            ToolError: what is wrong with the text, in words for the policy.
        """
        if len(text) > MAX_CHARS:
            raise ToolError(f"the action has {len(text)} characters, more than {MAX_CHARS}.")
        actions = tuple(self._read(text))
        if not actions:
            raise ToolError(f"no action was found. {self.instructions(elements=False)}")
        if len(actions) > MAX_ACTIONS:
            raise ToolError(f"{len(actions)} actions at once, more than {MAX_ACTIONS}.")
        for one in actions[:-1]:
            if one.type in ("DONE", "FAIL"):
                raise ToolError(f"{one.type} ends the task: nothing may follow it.")
        return actions


class Computer13(Vocabulary):
    """OSWorld's JSON: `{"action_type": "CLICK", "parameters": {"x": 10, "y": 20}}`.

    The parameters may also stand beside `action_type`; several actions come as an array or in
    lines; a line may be `CLICK {"x": 10, "y": 20}` or, without parameters, `DONE`.
    """

    def instructions(self, *, elements: bool) -> str:
        """One line."""
        place = '{"element": 3}, or {"x": 10, "y": 20}' if elements else '{"x": 10, "y": 20}'
        return (
            'Write one action in a line, such as CLICK {"x": 10, "y": 20}. Actions: '
            f"{', '.join(ACTION_TYPES)}. MOVE_TO, CLICK, RIGHT_CLICK, DOUBLE_CLICK and DRAG_TO "
            f'take {place}; SCROLL takes {{"dx": 0, "dy": -3}}, TYPING {{"text": "..."}}, PRESS, '
            'KEY_DOWN and KEY_UP {"key": "enter"}, HOTKEY {"keys": ["ctrl", "s"]}. End with DONE, '
            "or with FAIL where the task cannot be done."
        )

    def write(self, action: ComputerAction) -> str:
        """`TYPE {parameters}`."""
        parameters = json.dumps(dict(action.parameters), ensure_ascii=False)
        return f"{action.type} {parameters}" if action.parameters else action.type

    def _read(self, text: str) -> Sequence[ComputerAction]:
        body = _body(text)
        if body.startswith(("{", "[")):
            found = _json(body)
            return [_of_json(one) for one in (found if isinstance(found, list) else [found])]
        return [_of_line(line.strip()) for line in body.splitlines() if line.strip()]


class Pyautogui(Vocabulary):
    """Calls of pyautogui with literal arguments, as text that is parsed and never run."""

    def instructions(self, *, elements: bool) -> str:
        """One line."""
        return (
            "Write Python lines of pyautogui calls with literal arguments, such as "
            "pyautogui.click(10, 20), pyautogui.write('text'), pyautogui.press('enter') or "
            f"pyautogui.hotkey('ctrl', 's'). Known: {', '.join(_CALLS)}; and time.sleep. End with "
            "the word DONE, or FAIL where the task cannot be done."
        )

    def write(self, action: ComputerAction) -> str:
        """A call, or a word."""
        if action.type in ("DONE", "FAIL"):
            return action.type
        return _call_text(action.type, dict(action.parameters))

    def _read(self, text: str) -> Sequence[ComputerAction]:
        try:
            module = ast.parse(_body(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            said = error.msg if isinstance(error, SyntaxError) else "it cannot be parsed"
            raise ToolError(f"this is not Python: {said}.") from error
        return [action for line in module.body for action in _of_statement(line)]


class ToolCalls(Vocabulary):
    """`<tool_call>{"name": "click", "arguments": {"x": 10, "y": 20}}</tool_call>`."""

    def __init__(self) -> None:
        self.format = JsonFormat(ComputerTools(_never).tools())

    @property
    def schemas(self) -> tuple[Mapping[str, object], ...]:
        """The tools' schemas, for chat templates."""
        return tuple(tool.schema for tool in self.format.tools.values())

    def instructions(self, *, elements: bool) -> str:
        """The form of a call and the names; the schemas are the chat template's to show."""
        names = ", ".join(self.format.tools)
        return (
            'Call tools, such as <tool_call>{"name": "click", "arguments": {"x": 10, "y": 20}}'
            f"</tool_call>. Tools: {names}. End with the tool done, or with fail where the task "
            "cannot be done."
        )

    def write(self, action: ComputerAction) -> str:
        """One tool call."""
        return self.format.call(action.type.lower(), action.parameters)

    def _read(self, text: str) -> Sequence[ComputerAction]:
        parsed = self.format.parse(text)
        if parsed.errors:
            raise ToolError(" ".join(parsed.errors))
        return [checked(call.name.upper(), call.arguments) for call in parsed.calls]


VOCABULARIES: Mapping[str, type[Vocabulary]] = {
    "computer_13": Computer13,
    "pyautogui": Pyautogui,
    "tools": ToolCalls,
}


async def _never(action: ComputerAction) -> str:
    raise AssertionError(f"{action} was to be read, not performed")


def _body(text: str) -> str:
    """The text after a thought, inside of a fence where it has one."""
    rest = _THINK.sub("", text, count=1) if "</think>" in text else text
    fenced = _FENCE.findall(rest)
    return "\n".join(fenced).strip() if fenced else rest.strip()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"this is not JSON: {str(error)[:100]}.") from error


def _of_json(found: object) -> ComputerAction:
    if not isinstance(found, dict) or not isinstance(found.get("action_type"), str):
        raise ToolError('an action is a JSON object with "action_type" and "parameters".')
    given = {key: value for key, value in found.items() if key != "action_type"}
    parameters = given.pop("parameters", given)
    if not isinstance(parameters, dict) or (given and parameters is not given):
        raise ToolError('give all parameters inside "parameters", as a JSON object.')
    return checked(found["action_type"], parameters)


def _of_line(line: str) -> ComputerAction:
    if line.startswith("{"):
        return _of_json(_json(line))
    match = _LINE.fullmatch(line)
    if match is None:
        raise ToolError(
            f"{_short(line)} is no action. A line is a name and its parameters as JSON, such as "
            'CLICK {"x": 10, "y": 20}.'
        )
    parameters = _json(match[2]) if match[2] else {}
    return checked(match[1], parameters)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...").replace("<", "(").replace(">", ")")


# ---- pyautogui ----

_POINT = ("x", "y")
_CALLS: Mapping[str, tuple[str, ...]] = {
    "moveTo": (*_POINT, "duration"),
    "dragTo": (*_POINT, "duration", "button"),
    "click": (*_POINT, "clicks", "interval", "button", "duration"),
    "leftClick": (*_POINT, "interval", "duration"),
    "rightClick": (*_POINT, "interval", "duration"),
    "middleClick": (*_POINT, "interval", "duration"),
    "doubleClick": (*_POINT, "interval", "button", "duration"),
    "tripleClick": (*_POINT, "interval", "button", "duration"),
    "mouseDown": (*_POINT, "button"),
    "mouseUp": (*_POINT, "button"),
    "scroll": ("clicks", *_POINT),
    "vscroll": ("clicks", *_POINT),
    "hscroll": ("clicks", *_POINT),
    "write": ("message", "interval"),
    "typewrite": ("message", "interval"),
    "press": ("keys", "presses", "interval"),
    "keyDown": ("key",),
    "keyUp": ("key",),
    "hotkey": (),
    "sleep": ("seconds",),
}
"""Functions and their parameters, in pyautogui's order; how long a movement takes is ignored."""

_CLICKS = {"doubleClick": 2, "tripleClick": 3}
_BUTTONS = {"rightClick": "right", "middleClick": "middle"}


def _of_statement(line: ast.stmt) -> Sequence[ComputerAction]:
    if isinstance(line, (ast.Import, ast.ImportFrom, ast.Pass)):
        return ()
    value = line.value if isinstance(line, ast.Expr) else None
    if isinstance(value, ast.Name) and value.id in ("WAIT", "DONE", "FAIL"):
        return (checked(value.id, {}),)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return ()
    if not isinstance(value, ast.Call):
        raise ToolError(
            f"line {line.lineno}: only calls of pyautogui with literal arguments, and DONE or FAIL."
        )
    name = _function(value)
    where = f"line {line.lineno}: pyautogui.{name}"
    try:
        arguments = [ast.literal_eval(one) for one in value.args]
        keywords = {str(one.arg): ast.literal_eval(one.value) for one in value.keywords}
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ToolError(f"{where} takes literal arguments only.") from error
    if name == "hotkey":
        keys = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else arguments
        return (checked("HOTKEY", {"keys": keys}),)
    parameters = _CALLS[name]
    if len(arguments) > len(parameters):
        raise ToolError(f"{where} takes {len(parameters)} arguments, got {len(arguments)}.")
    given = dict(zip(parameters, arguments, strict=False))
    for key, one in keywords.items():
        if key in given or key not in (*parameters, "_pause", "logScreenshot", "tween"):
            raise ToolError(f"{where} has no argument {key[:40]!r} left to give.")
        given[key] = one
    return _of_call(name, {key: one for key, one in given.items() if one is not None})


def _function(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        module, name = function.value.id, function.attr
        if (module == "pyautogui" and name in _CALLS) or (module, name) == ("time", "sleep"):
            return name
    raise ToolError(
        f"line {call.lineno}: no known function is called here. Known: pyautogui."
        f"{', '.join(_CALLS)}."
    )


def _of_call(name: str, given: Mapping[str, Any]) -> Sequence[ComputerAction]:
    """The actions of one call."""
    point = {key: _whole(given[key]) for key in _POINT if key in given}
    there = [checked("MOVE_TO", point)] if point else []
    if name == "moveTo":
        return [checked("MOVE_TO", point)]
    if name == "dragTo":
        if given.get("button", "left") != "left":
            raise ToolError("pyautogui.dragTo drags with the left button only.")
        return [checked("DRAG_TO", point)]
    if name.lower().endswith("click"):
        button = _BUTTONS.get(name, given.get("button", "left"))
        clicks = _CLICKS.get(name, given.get("clicks", 1))
        return [checked("CLICK", {**point, "button": button, "num_clicks": clicks})]
    if name in ("mouseDown", "mouseUp"):
        kind = "MOUSE_DOWN" if name == "mouseDown" else "MOUSE_UP"
        return [*there, checked(kind, {"button": given.get("button", "left")})]
    if name in ("scroll", "vscroll", "hscroll"):
        ticks = _whole(given.get("clicks", 0))
        return [*there, checked("SCROLL", {"dx" if name == "hscroll" else "dy": ticks})]
    if name in ("write", "typewrite"):
        return [checked("TYPING", {"text": given.get("message", "")})]
    if name == "press":
        keys = given.get("keys", "")
        times = given.get("presses", 1)
        if not isinstance(times, int) or not 1 <= times <= MAX_ACTIONS:
            raise ToolError(f"pyautogui.press: presses must be from 1 to {MAX_ACTIONS}.")
        keys = keys if isinstance(keys, list) else [keys]
        return [checked("PRESS", {"key": key}) for _ in range(times) for key in keys]
    if name == "sleep":
        return [checked("WAIT", {"seconds": given.get("seconds", 1.0)})]
    return [checked("KEY_DOWN" if name == "keyDown" else "KEY_UP", dict(given))]


def _whole(value: object) -> object:
    return round(value) if isinstance(value, float) and abs(value) < 1e6 else value


_WRITTEN = {
    "MOVE_TO": "moveTo",
    "DRAG_TO": "dragTo",
    "RIGHT_CLICK": "rightClick",
    "DOUBLE_CLICK": "doubleClick",
    "MOUSE_DOWN": "mouseDown",
    "MOUSE_UP": "mouseUp",
    "PRESS": "press",
    "KEY_DOWN": "keyDown",
    "KEY_UP": "keyUp",
}


def _call_text(type: str, given: dict[str, Any]) -> str:
    if "element" in given:
        raise ToolError("pyautogui has no elements: give x and y.")
    if type == "TYPING":
        return f"pyautogui.write({given['text']!r})"
    if type == "HOTKEY":
        return f"pyautogui.hotkey({', '.join(map(repr, given['keys']))})"
    if type == "WAIT":
        return f"time.sleep({given.get('seconds', 1.0)!r})"
    if type == "SCROLL":
        calls = [("scroll", given.get("dy", 0)), ("hscroll", given.get("dx", 0))]
        return "\n".join(f"pyautogui.{name}({ticks})" for name, ticks in calls if ticks)
    if type == "CLICK":
        given = {("clicks" if key == "num_clicks" else key): one for key, one in given.items()}
    values = ", ".join(
        repr(one) if key == "key" else f"{key}={one!r}" for key, one in given.items()
    )
    return f"pyautogui.{_WRITTEN.get(type, 'click')}({values})"

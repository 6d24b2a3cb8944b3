"""Setup steps of a task, by OSWorld's names: what each does, and why one cannot be done here."""

from __future__ import annotations

import asyncio
import functools
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from agentrl.core.errors import EnvError, ToolError

from .actions import Pyautogui
from .confinement import INSIDE
from .events import events_of
from .session import Desktop, absolute
from .sources import Sources

WINDOW_SECONDS = 15.0
"""How long a window may take to appear."""

COMMAND_SECONDS = 20.0
MAX_SLEEP = 10.0
_WEB = ("http://", "https://", "chrome://", "www.")
_OPENERS = {
    **dict.fromkeys((".txt", ".md", ".csv", ".json", ".ini", ".conf", ".py", ".log"), "mousepad"),
    **dict.fromkeys((".html", ".htm"), "chromium"),
}
_BUILTINS = {
    *("[", ":", "cd", "do", "done", "echo", "elif", "else", "export", "false", "fi", "for", "if"),
    *("read", "set", "test", "then", "true", "while"),
}
_NOT_HERE = {
    *("apt", "apt-get", "curl", "git", "pactl", "pip", "pip3", "pulseaudio", "snap", "su", "sudo"),
    *("systemctl", "timedatectl", "wget"),
}
"""Programs that are of no use without a network, an administrator or system services."""

_SCHEMAS = Path("/usr/share/glib-2.0/schemas")


class Stage(NamedTuple):
    """Where steps are done: a desktop, the files that may be brought, and commands' kept output."""

    desktop: Desktop
    sources: Sources
    kept: dict[str, bytes]
    strict: bool
    """Whether a step that fails is a failure of ours: while judging it may be the policy's."""


Step: TypeAlias = Callable[..., Awaitable[None]]
Refusal: TypeAlias = Callable[[Mapping[str, Any], Sources], str | None]


class StepKind(NamedTuple):
    """What a step does, and why parameters cannot be done (None: they can)."""

    do: Step
    refusal: Refusal


def filled(value: Any, *, width: int, height: int) -> Any:
    """`value` with OSWorld's placeholders for the screen and the password filled in."""
    if isinstance(value, str):
        for name, number in (("WIDTH", width), ("HEIGHT", height)):
            value = value.replace(f"{{SCREEN_{name}_HALF}}", str(number // 2))
            value = value.replace(f"{{SCREEN_{name}}}", str(number))
        return value.replace("{CLIENT_PASSWORD}", "password")
    if isinstance(value, list):
        return [filled(one, width=width, height=height) for one in value]
    if isinstance(value, dict):
        return {key: filled(one, width=width, height=height) for key, one in value.items()}
    return value


async def do_steps(steps: Sequence[Mapping[str, Any]], stage: Stage) -> None:
    """Do each step in turn, and wait each time until the desktop is quiet."""
    for step in steps:
        parameters = filled(
            dict(step.get("parameters", {})),
            width=stage.desktop.settings.width,
            height=stage.desktop.settings.height,
        )
        await STEPS[step["type"]].do(stage, **parameters)


def refusals(steps: Sequence[Mapping[str, Any]], sources: Sources) -> list[str]:
    """Why steps cannot be done here, a reason for each that cannot."""
    found = []
    for step in steps:
        kind = STEPS.get(step["type"])
        if kind is None:
            found.append(f"setup step {step['type']!r} is not known")
            continue
        reason = kind.refusal(step.get("parameters", {}), sources)
        if reason:
            found.append(f"setup step {step['type']}: {reason}")
    return found


async def _launch(stage: Stage, command: str | Sequence[str], shell: bool | str = False) -> None:
    if _is_bridge(command):
        return
    refused = await stage.desktop.launch(argv_of(command, shell))
    if refused and stage.strict:
        raise EnvError(f"the task's program could not be started: {refused}")
    await _quiet(stage)


async def _execute(
    stage: Stage,
    command: str | Sequence[str],
    shell: bool | str = False,
    stdout: str = "",
    stderr: str = "",
    until: object = None,
) -> None:
    script = _script(command)
    if script is not None:
        for action in Pyautogui().read(script):
            await stage.desktop.request("play", events=events_of(action, None))
            await _quiet(stage)
        return
    ran = await stage.desktop.run(argv_of(command, shell), timeout=COMMAND_SECONDS)
    if ran.code is None and stage.strict:
        raise EnvError(f"the task's command did not end within {COMMAND_SECONDS:g} s: {command!r}")
    if stdout:
        stage.kept[stdout] = ran.stdout.encode()
    if stderr:
        stage.kept[stderr] = ran.stderr.encode()


async def _open(stage: Stage, path: str) -> None:
    program = _OPENERS.get(Path(path).suffix.lower(), "pcmanfm")
    await _launch(stage, [program, absolute(path)])


async def _activate_window(
    stage: Stage, window_name: str, strict: bool = False, by_class: bool = False
) -> None:
    window = await _window(stage, window_name, strict, by_class)
    if window is not None:
        await stage.desktop.request("window", number=window["id"], action="activate")
        await _quiet(stage)


async def _close_window(
    stage: Stage, window_name: str, strict: bool = False, by_class: bool = False
) -> None:
    window = await _window(stage, window_name, strict, by_class)
    if window is not None:
        await stage.desktop.request("window", number=window["id"], action="close")
        await _quiet(stage)


async def _window(
    stage: Stage, name: str, strict: bool, by_class: bool
) -> Mapping[str, Any] | None:
    """The window of a name, which may still be about to appear."""
    loop = asyncio.get_running_loop()
    end = loop.time() + (WINDOW_SECONDS if stage.strict else 1.0)
    key = "class" if by_class else "title"
    while True:
        for window in await stage.desktop.windows():
            if window[key] == name or (not strict and name.lower() in window[key].lower()):
                return window
        if loop.time() > end:
            break
        await asyncio.sleep(0.05)
    if stage.strict:
        raise EnvError(f"no window named {name!r} appeared within {WINDOW_SECONDS:g} s")
    return None


async def _sleep(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(min(float(seconds), MAX_SLEEP))


async def _write_file(stage: Stage, path: str, text: str = "") -> None:
    await stage.desktop.write(path, text.encode())


async def _download(stage: Stage, files: Sequence[Mapping[str, str]]) -> None:
    for one in files:
        await stage.desktop.write(one["path"], await stage.sources.read(one["url"]))


async def _open_tabs(stage: Stage, urls_to_open: Sequence[str]) -> None:
    await _launch(stage, ["chromium", *urls_to_open])
    await _activate_window(stage, "Chromium")


async def _quiet(stage: Stage) -> None:
    await stage.desktop.request("settle", quiet=0.08, limit=10.0)


def argv_of(command: str | Sequence[str], shell: bool | str) -> str | Sequence[str]:
    """What to run: a string goes through the shell, as OSWorld's `shell` or a pipe asks for."""
    if isinstance(command, str):
        return command if shell in (True, "true") else shlex.split(command)
    return " ".join(command) if shell in (True, "true") or "|" in command else command


def _is_bridge(command: str | Sequence[str]) -> bool:
    """Whether a command is OSWorld's way to reach a browser from outside: nothing here does."""
    return not isinstance(command, str) and list(command[:2]) == ["socat", "tcp-listen:9222,fork"]


def _script(command: str | Sequence[str]) -> str | None:
    """The pyautogui lines of a `python -c` that has nothing else in it; they are not run."""
    if isinstance(command, str) or len(command) != 3 or "pyautogui" not in command[2]:
        return None
    if not command[0].startswith("python") or command[1] != "-c":
        return None
    lines = [line.strip() for line in re.split(r";\s*|\n", command[2]) if line.strip()]
    return "\n".join(lines)


def missing_program(command: str | Sequence[str]) -> str | None:
    """Which program of a command a desktop lacks."""
    words: list[str] = []
    if isinstance(command, str):
        for part in re.split(r"\|\||&&|[|;&\n]", command):
            part = re.sub(r"^\s*(?:\w+=\S*\s+)*[({!\s]*", "", part)
            words += part.split()[:1]
    else:
        words = list(command[:1])
    for word in words:
        if word in _NOT_HERE:
            return word
        known = word in _BUILTINS or not re.fullmatch(r"[A-Za-z0-9_.+-]+", word)
        places = (INSIDE / "bin" / word, Path("/usr/bin") / word)
        if not known and not any(place.exists() for place in places):
            return word
    return None


def _missing_schema(command: str | Sequence[str]) -> str | None:
    """Which schema of settings a command asks for that nothing here brings."""
    text = command if isinstance(command, str) else " ".join(command)
    for name in re.findall(r"gsettings (?:get|set) ([a-z0-9.-]+)", text):
        if name not in _schemas():
            return str(name)
    return None


@functools.cache
def _schemas() -> frozenset[str]:
    texts = [path.read_text("utf-8", "replace") for path in sorted(_SCHEMAS.glob("*.xml"))]
    return frozenset(
        name for text in texts for name in re.findall(r'<schema[^>]* id="([^"]+)"', text)
    )


def command_refusal(command: str | Sequence[str]) -> str | None:
    """Why a command is of no use on a desktop, or None."""
    program, schema = missing_program(command), _missing_schema(command)
    if program:
        return f"the program {program!r} is not on the desktop"
    return f"no settings named {schema!r} are on the desktop" if schema else None


def _refuse_command(parameters: Mapping[str, Any], sources: Sources) -> str | None:
    command = parameters.get("command", "")
    script = _script(filled(command, width=1280, height=720))
    if script is not None:
        try:
            actions = Pyautogui().read(script)
        except ToolError as error:
            return f"its pyautogui script cannot be read: {error}"
        if any(one.parameters.get("keys") == ["ctrl", "alt", "t"] for one in actions):
            return "the shortcut ctrl+alt+t of Ubuntu opens no terminal here"
        return None
    if isinstance(command, list) and any("pyautogui" in one for one in command):
        return "its script does more than pyautogui calls with literal arguments"
    return None if _is_bridge(command) else command_refusal(command)


def _refuse_open(parameters: Mapping[str, Any], sources: Sources) -> str | None:
    suffix = Path(str(parameters.get("path", ""))).suffix.lower()
    if suffix and suffix not in _OPENERS:
        return f"no application of the desktop opens {suffix!r} files"
    return None


def _refuse_download(parameters: Mapping[str, Any], sources: Sources) -> str | None:
    for one in parameters.get("files", ()):
        reason = sources.refusal(one["url"])
        if reason:
            return reason
    return None


def _refuse_tabs(parameters: Mapping[str, Any], sources: Sources) -> str | None:
    for url in parameters.get("urls_to_open", ()):
        if url.startswith(_WEB) and not url.startswith("chrome://"):
            return f"a desktop has no network, so {url} cannot be opened"
    return None


def _nothing(parameters: Mapping[str, Any], sources: Sources) -> str | None:
    return None


STEPS: Mapping[str, StepKind] = {
    "activate_window": StepKind(_activate_window, _nothing),
    "chrome_open_tabs": StepKind(_open_tabs, _refuse_tabs),
    "close_window": StepKind(_close_window, _nothing),
    "command": StepKind(_execute, _refuse_command),
    "download": StepKind(_download, _refuse_download),
    "execute": StepKind(_execute, _refuse_command),
    "launch": StepKind(_launch, _refuse_command),
    "open": StepKind(_open, _refuse_open),
    "sleep": StepKind(_sleep, _nothing),
    "write_file": StepKind(_write_file, _nothing),
}
"""Steps by OSWorld's names, and `write_file` of ours."""

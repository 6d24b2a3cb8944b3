"""What a task's evaluator looks at: OSWorld's getters by name."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeAlias

from .session import HOME, Desktop
from .sources import Sources
from .steps import COMMAND_SECONDS, Stage, argv_of, command_refusal

MAX_NODES = 1500
BOOKMARKS = f"{HOME}/.config/chromium/Default/Bookmarks"

Getter: TypeAlias = Callable[[Stage, Mapping[str, Any]], Awaitable[object]]
Refusal: TypeAlias = Callable[[Mapping[str, Any], Sources], str | None]


class GetterKind(NamedTuple):
    """How something is got, and why it cannot be (None: it can)."""

    get: Getter
    refusal: Refusal


async def get(stage: Stage, spec: Mapping[str, Any]) -> object:
    """What `spec` asks for; None where it is not there."""
    return await GETTERS[spec["type"]].get(stage, spec)


def refusal(spec: Mapping[str, Any], sources: Sources) -> str | None:
    """Why a getter cannot be used here, or None."""
    kind = GETTERS.get(spec.get("type", ""))
    if kind is None:
        return f"getter {spec.get('type')!r} is not known"
    reason = kind.refusal(spec, sources)
    return f"getter {spec['type']}: {reason}" if reason else None


async def read_nodes(desktop: Desktop) -> Sequence[Mapping[str, Any]]:
    """The accessibility tree as it is now."""
    return list((await desktop.request("tree", max_nodes=MAX_NODES))["nodes"])


async def _rule(stage: Stage, spec: Mapping[str, Any]) -> object:
    return spec["rules"]


async def _file(stage: Stage, spec: Mapping[str, Any]) -> object:
    return await stage.desktop.read(spec["path"])


async def _command(stage: Stage, spec: Mapping[str, Any]) -> object:
    argv = argv_of(spec["command"], spec.get("shell", False))
    return (await stage.desktop.run(argv, timeout=COMMAND_SECONDS)).stdout


async def _command_error(stage: Stage, spec: Mapping[str, Any]) -> object:
    argv = argv_of(spec["command"], spec.get("shell", False))
    return (await stage.desktop.run(argv, timeout=COMMAND_SECONDS)).stderr


async def _kept(stage: Stage, spec: Mapping[str, Any]) -> object:
    return stage.kept.get(spec["path"])


async def _cloud(stage: Stage, spec: Mapping[str, Any]) -> object:
    return await stage.sources.read(spec["path"])


async def _terminal(stage: Stage, spec: Mapping[str, Any]) -> object:
    texts = [one["text"] for one in await read_nodes(stage.desktop) if one["role"] == "terminal"]
    return "\n".join(texts) if texts else None


async def _tree(stage: Stage, spec: Mapping[str, Any]) -> object:
    return await read_nodes(stage.desktop)


async def _windows(stage: Stage, spec: Mapping[str, Any]) -> object:
    return [window["title"] for window in await stage.desktop.windows()]


async def _screen_size(stage: Stage, spec: Mapping[str, Any]) -> object:
    settings = stage.desktop.settings
    return {"width": settings.width, "height": settings.height}


async def _window_size(stage: Stage, spec: Mapping[str, Any]) -> object:
    for window in await stage.desktop.windows():
        if window["class"].lower() == spec["app_class_name"].lower():
            return {"width": window["width"], "height": window["height"]}
    return None


async def _bookmarks(stage: Stage, spec: Mapping[str, Any]) -> object:
    content = await stage.desktop.read(BOOKMARKS)
    if content is None:
        return None
    try:
        return json.loads(content)["roots"]
    except (ValueError, LookupError, TypeError):
        return None


async def _address(stage: Stage, spec: Mapping[str, Any]) -> object:
    for node in await read_nodes(stage.desktop):
        if node["role"] == "entry" and node["name"] == "Address and search bar":
            return f"{spec.get('goto_prefix', 'https://')}{node['text']}"
    return None


def _nothing(spec: Mapping[str, Any], sources: Sources) -> str | None:
    return None


def _refuse_file(spec: Mapping[str, Any], sources: Sources) -> str | None:
    path = spec.get("path")
    if spec.get("multi") or not isinstance(path, str):
        return "several files at once"
    if not PurePosixPath(path).is_absolute() and not path.startswith("~/"):
        return None
    inside = path.startswith(("/home/user/", "/tmp/", "~/"))
    return None if inside else f"{path} is outside of the desktop's folders"


def _refuse_command(spec: Mapping[str, Any], sources: Sources) -> str | None:
    return command_refusal(spec.get("command", ""))


def _refuse_cloud(spec: Mapping[str, Any], sources: Sources) -> str | None:
    path = spec.get("path")
    return sources.refusal(path) if isinstance(path, str) else "several files at once"


GETTERS: Mapping[str, GetterKind] = {
    "accessibility_tree": GetterKind(_tree, _nothing),
    "active_url_from_accessTree": GetterKind(_address, _nothing),
    "bookmarks": GetterKind(_bookmarks, _nothing),
    "cache_file": GetterKind(_kept, _nothing),
    "cloud_file": GetterKind(_cloud, _refuse_cloud),
    "rule": GetterKind(_rule, _nothing),
    "vm_command_error": GetterKind(_command_error, _refuse_command),
    "vm_command_line": GetterKind(_command, _refuse_command),
    "vm_file": GetterKind(_file, _refuse_file),
    "vm_screen_size": GetterKind(_screen_size, _nothing),
    "vm_terminal_output": GetterKind(_terminal, _nothing),
    "vm_window_size": GetterKind(_window_size, _nothing),
    "window_list": GetterKind(_windows, _nothing),
}
"""Getters by OSWorld's names, and `window_list` of ours."""

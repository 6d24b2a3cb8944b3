"""One sandbox for all environments of a process that ask for the same one."""

from __future__ import annotations

import asyncio
import weakref
from typing import TypeAlias

from agentrl.sandbox.base import Sandbox
from agentrl.sandbox.settings import AnySandbox, DockerSettings, SubprocessSettings

_Loops: TypeAlias = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[AnySandbox, Sandbox]]
_shared: _Loops = weakref.WeakKeyDictionary()


def shared(settings: AnySandbox) -> Sandbox:
    """The sandbox of these settings in the running event loop; it lives as long as the process.

    Environments close their sessions, never the sandbox: its pools and warm interpreters serve all.
    """
    mine = _shared.setdefault(asyncio.get_running_loop(), {})
    if settings not in mine:
        mine[settings] = build(settings)
    return mine[settings]


def build(settings: AnySandbox) -> Sandbox:
    """A sandbox of its own, which the caller closes; nothing is started before its first use."""
    if isinstance(settings, DockerSettings):
        from agentrl.sandbox.docker import DockerSandbox

        return DockerSandbox(settings)
    if isinstance(settings, SubprocessSettings):
        from agentrl.sandbox.subprocess import SubprocessSandbox

        return SubprocessSandbox(settings)
    from agentrl.sandbox.bubblewrap import BubblewrapSandbox

    return BubblewrapSandbox(settings)

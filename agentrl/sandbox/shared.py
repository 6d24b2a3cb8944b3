"""One sandbox for all environments of a process that ask for the same one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import NamedTuple

from agentrl.sandbox.base import Sandbox
from agentrl.sandbox.settings import AnySandbox, DockerSettings, SubprocessSettings


class _Kept(NamedTuple):
    sandbox: Sandbox
    guard: AsyncGenerator[None, None]


_shared: dict[asyncio.AbstractEventLoop, dict[AnySandbox, _Kept]] = {}


def shared(settings: AnySandbox) -> Sandbox:
    """The sandbox of these settings in the running event loop; it lives as long as the loop.

    Environments close their sessions, never the sandbox: its pools and warm interpreters serve all.
    `asyncio.run` closes it at its end.
    """
    loop = asyncio.get_running_loop()
    if loop not in _shared:
        for ended in [one for one in _shared if one.is_closed()]:
            del _shared[ended]
    mine = _shared.setdefault(loop, {})
    if settings not in mine:
        sandbox = build(settings)
        mine[settings] = _Kept(sandbox, _until_the_loop_ends(sandbox))
        with contextlib.suppress(StopIteration):
            mine[settings].guard.asend(None).send(None)
    return mine[settings].sandbox


async def _until_the_loop_ends(sandbox: Sandbox) -> AsyncGenerator[None, None]:
    # A loop closes the asynchronous generators that were begun in it before it ends.
    try:
        yield
    finally:
        await sandbox.close()


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

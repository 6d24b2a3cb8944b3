"""Which sandbox an environment runs code in, as a recipe says it; imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.sandbox.base import Limits


class BubblewrapSettings(Settings):
    """Linux namespaces (the Debian package bubblewrap): no network, its own processes and files.

    Interpreters are forked from a warm one that has imported `preload`. At most `sessions` live at
    once; a call waits for a free one. Processes and threads of all of them together are at most
    `processes`, each session's two of our own included: beyond that no program can start another.
    """

    type: Literal["bubblewrap"] = "bubblewrap"
    limits: Limits = Limits()
    preload: tuple[str, ...] = ("numpy",)
    sessions: int = Field(default=1024, ge=1)
    processes: int = Field(default=4096, ge=64)


class DockerSettings(Settings):
    """Containers of a Docker daemon: no network, read-only root, no capabilities.

    `image` needs Python; `pull` says when it is fetched. At most `containers` live at once, each on
    at most `cpus` processors; one is cleaned and used again up to `recycle` times. `host` is the
    daemon's address, as in `DOCKER_HOST` (which counts where it is empty); a daemon that does not
    answer within `daemon_seconds` has failed.
    """

    type: Literal["docker"] = "docker"
    limits: Limits = Limits()
    image: str = "python:3.11-slim"
    pull: Literal["missing", "never", "always"] = "missing"
    containers: int = Field(default=16, ge=1)
    recycle: int = Field(default=64, ge=1)
    cpus: float = Field(default=1.0, gt=0.0)
    host: str = ""
    daemon_seconds: float = Field(default=60.0, gt=0.0)


class SubprocessSettings(Settings):
    """A plain process with resource limits: NO isolation. For code that you would run yourself."""

    type: Literal["subprocess"] = "subprocess"
    limits: Limits = Limits()


AnySandbox: TypeAlias = Annotated[
    BubblewrapSettings | DockerSettings | SubprocessSettings, Field(discriminator="type")
]
"""Sandboxes by the name in `type`."""

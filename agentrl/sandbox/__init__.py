"""Sandboxes: where code of the policy runs, isolated, limited and forkable."""

from __future__ import annotations

from agentrl.sandbox.base import Limits, RunResult, RunStatus, Sandbox, Session
from agentrl.sandbox.settings import (
    AnySandbox,
    BubblewrapSettings,
    DockerSettings,
    SubprocessSettings,
)
from agentrl.sandbox.shared import shared

__all__ = [
    "AnySandbox",
    "BubblewrapSettings",
    "DockerSettings",
    "Limits",
    "RunResult",
    "RunStatus",
    "Sandbox",
    "Session",
    "SubprocessSettings",
    "shared",
]

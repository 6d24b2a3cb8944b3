"""Suites of service."""

from __future__ import annotations

from agentrl.evals.suite import Suite

SUITES: tuple[Suite, ...] = ()

"""Which suites have rows in the shared data, and what their tests need."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from agentrl.evals.suite import Suite

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "envs"))
from desktop_processes import needs_desktop

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Rows that the sweeps read where they are there; the project does not need them."""

_BWRAP = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap"
)
_MINIWOB = pytest.mark.skipif(
    importlib.util.find_spec("miniwob") is None, reason='pip install "agentrl[miniwob]"'
)
_CHROMIUM = pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    reason="no Chromium: apt-get install chromium",
)
_MARKS = {
    "code": (pytest.mark.bubblewrap, _BWRAP),
    "web": (pytest.mark.browser, _CHROMIUM, _MINIWOB),
    "desktop": (pytest.mark.desktop, pytest.mark.bubblewrap, needs_desktop),
}


def has_rows(suite: Suite) -> bool:
    """Whether `suite` needs no rows, or all its rows are in the shared data."""
    files = [one.file.partition("@")[0] for one in suite.rows.values()]
    return all(files) and all((SHARED_DATA / file).exists() for file in files)


def parameter(suite: Suite) -> object:
    """The suite as a test's parameter, with the marks of what it needs."""
    there = has_rows(suite)
    missing = pytest.mark.skipif(not there, reason=f"its rows are not in {SHARED_DATA}")
    return pytest.param(suite, id=suite.name, marks=[*_MARKS.get(suite.family, ()), missing])

"""What all tests share: CI forbids skips (unless only a GPU would mend one) and draws nothing new.

Property tests draw other examples in every run at a desk, where what they find can be mended; CI
judges a commit, so there the examples follow from the test alone.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("agentrl_ci", derandomize=True)
if os.environ.get("AGENTRL_FORBID_SKIPS"):
    settings.load_profile("agentrl_ci")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, None, None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("AGENTRL_FORBID_SKIPS") and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped although CI must run it: {report.longrepr}"

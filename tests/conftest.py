"""What all tests share: CI forbids skips (unless only a GPU would mend one) and draws nothing new.

Long files run first, so that several workers end together (`make test`).

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of slow tests first, or a worker ends with a long one while the others have none."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, None, None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("AGENTRL_FORBID_SKIPS") and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped although CI must run it: {report.longrepr}"

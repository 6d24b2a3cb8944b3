"""The suites that `agentrl eval` knows by name."""

from __future__ import annotations

from collections.abc import Mapping

from agentrl.core.errors import RecipeError
from agentrl.evals.suite import Suite
from agentrl.evals.suites import code, deep_search, games, gui, math, qa, service

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for family in (math, code, qa, deep_search, games, gui, service)
    for suite in family.SUITES
}
"""Name -> suite."""


def find_suite(name: str) -> Suite:
    """The suite `name`, or `name@version` where that is its version.

    Raises:
        RecipeError: there is none of that name, or it has another version by now.
    """
    bare, _, version = name.partition("@")
    suite = SUITES.get(bare)
    if suite is None:
        raise RecipeError(f"no suite {bare!r}; `agentrl suite list` shows them all")
    if version and version != str(suite.version):
        raise RecipeError(
            f"suite {bare!r} is at version {suite.version}, not {version}; its scores are not "
            "comparable with the older version's"
        )
    return suite

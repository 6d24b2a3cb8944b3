"""The suites that `agentrl eval` knows by name."""

from __future__ import annotations

from collections.abc import Mapping

from agentrl.core.errors import RecipeError, nearest
from agentrl.core.registry import load_named
from agentrl.evals.suite import Suite
from agentrl.evals.suites import code, deep_search, games, gui, math, qa, service

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for family in (math, code, qa, deep_search, games, gui, service)
    for suite in family.SUITES
}
"""Name -> suite."""


def find_suite(name: str) -> Suite:
    """The suite `name`, or `name@version` where that is its version; `module:NAME` is one's own.

    Raises:
        RecipeError: there is none of that name, or it has another version by now.
    """
    bare, _, version = name.partition("@")
    suite = _own(bare) if ":" in bare else SUITES.get(bare)
    if suite is None:
        raise RecipeError(
            f"no suite {bare!r}.{nearest(bare, SUITES)} `agentrl suite list` shows them all; one "
            "of your own is named module:NAME"
        )
    if version and version != str(suite.version):
        raise RecipeError(
            f"suite {bare!r} is at version {suite.version}, not {version}; its scores are not "
            "comparable with the older version's"
        )
    return suite


def _own(name: str) -> Suite:
    where = f"suite {name!r}"
    cannot = f"{where}: its module cannot be imported"
    found = load_named(name, where=where, cannot=cannot, error=RecipeError)
    if not isinstance(found, Suite):
        raise RecipeError(f"{where} is no agentrl.evals.suite.Suite, but {found!r:.80}")
    return found

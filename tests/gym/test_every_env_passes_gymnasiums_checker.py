"""Every registered environment goes through Gymnasium's own checker."""

from __future__ import annotations

import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import agentrl.gym
from agentrl.core.errors import SetupError
from agentrl.core.registry import env_ids, env_table
from agentrl.gym import gymnasium_id

NEEDS = {"browse": "browser", "code": "bubblewrap", "desktop": "desktop", "miniwob": "browser"}
"""What the environments of a family need, as marks of pytest."""
QUICK = frozenset({"demo", "games", "math"})
"""Families whose environments start nothing."""

OURS = [id_ for id_ in env_ids() if env_table().entries[id_][0].package == "agentrl"]


def case(id_: str) -> object:
    """The id with the marks of its family."""
    family = id_.partition("/")[0]
    marks = [] if family in QUICK else [pytest.mark.slow]
    if family in NEEDS:
        marks.append(getattr(pytest.mark, NEEDS[family]))
    return pytest.param(id_, marks=marks, id=id_)


@pytest.mark.parametrize("id_", [case(id_) for id_ in OURS])
def test_it_has_nothing_to_say(id_: str) -> None:
    agentrl.gym.register_all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of an environment's own libraries, not of the checker.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        env = gymnasium.make(gymnasium_id(id_))
        if getattr(env.unwrapped.env, "max_turns", 2) == 1:
            # The checker's first action is noise, and it allows none to be the last.
            env.close()
            env = gymnasium.make(gymnasium_id(id_), max_turns=2)
        try:
            check_env(env.unwrapped)
        except SetupError as error:
            pytest.skip(str(error))
        finally:
            env.close()
    assert env.spec is not None and env.spec.id == gymnasium_id(id_)

"""Trees whose steps stood in given states, for the tests of credit by steps."""

from __future__ import annotations

import dataclasses

from agentrl.core.types import ROOT
from agentrl.testing.trees import tree_of


def chain(rewards, states):
    """A chain whose steps are paid and stood as given; "" is a state that is not known."""
    parents = [ROOT, *range(len(rewards) - 1)]
    return stated(tree_of(parents, dict(enumerate(rewards))), states)


def stated(tree, states):
    for node, state in enumerate(states):
        tree.turns[node] = dataclasses.replace(tree.turns[node], state_key=state)
    return tree

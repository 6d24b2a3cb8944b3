"""Pass@k's credit on values worked by hand and against its definition."""

from statistics import stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import PassAtKCredit, TurnTable
from agentrl.testing.trees import chains, random_groups, tree_of


def advantage(group, **given_):
    return PassAtKCredit(**given_).compare(TurnTable.of([group])).advantage


def test_only_the_best_is_worth_its_lead_over_the_second_by_hand():
    assert advantage(chains([0.0, 3.0, 1.0]), scale="none").tolist() == [0.0, 2.0, 0.0]
    # Mean 2/3, deviations 1/3 1/3 -2/3: std sqrt(1/3); 1 of 3 right has std sqrt(1/3) as well.
    np.testing.assert_allclose(advantage(chains([0.0, 1.0, 0.0])), [0, np.sqrt(3), 0], rtol=1e-5)
    assert advantage(chains([1.0, 1.0, 0.0])).tolist() == [0.0] * 3, "the other would do"


def test_equal_returns_are_exactly_zero_and_one_alone_says_nothing():
    assert advantage(chains([0.1] * 7)).tolist() == [0.0] * 7
    alone = PassAtKCredit().compare(TurnTable.of([chains([1.0])]))
    assert alone.advantage.tolist() == [0.0] and not alone.trains.any()
    with pytest.raises(ContractError, match="one trajectory left"):
        advantage(chains([1.0]), singleton="error")


def test_two_best_returns_that_differ_by_rounding_are_worth_exactly_nothing():
    # 0.1 + 0.2 is 5.6e-17 above 0.3.
    pair = (tree_of([ROOT, 0], {0: 0.1, 1: 0.2}), tree_of([ROOT], {0: 0.3}))
    group = Group("g", "g", (*pair, tree_of([ROOT], {0: 0.0})))
    for scale in ("std", "none"):
        assert advantage(group, scale=scale).tolist() == [0.0] * 3


def test_a_truncated_best_is_masked_or_makes_room():
    trees = [
        tree_of([ROOT], {0: r}, stops={0: StopReason.TRUNCATED_TURNS} if cut else None)
        for r, cut in [(3.0, True), (2.0, False), (0.5, False)]
    ]
    group = Group("g", "g", tuple(trees))
    assert advantage(group, scale="none").tolist() == [1.0, 0.0, 0.0]
    assert advantage(group, scale="none", truncated="mask").tolist() == [0.0] * 3
    assert advantage(group, scale="none", truncated="exclude").tolist() == [0.0, 1.5, 0.0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from(["std", "none"]))
def test_on_random_trees_it_is_the_definition(seed, scale):
    groups, wanted = random_groups(seed), []
    for group in groups:
        kept = [
            one.episode_return for one in group.trajectories() if not one.stop_reason.is_failure
        ]
        top = sorted(kept)[-2:]
        spread = stdev(kept) + 1e-6 if scale == "std" and len(kept) > 1 else 1.0
        lead = (top[1] - top[0]) / spread if len(top) == 2 and top[1] - top[0] > 1e-9 else 0.0
        wanted += [lead if value == max(kept) else 0.0 for value in kept]
    found = PassAtKCredit(scale=scale).compare(TurnTable.of(groups))
    np.testing.assert_allclose(found.advantage, wanted, atol=1e-9)


def test_a_table_without_turns_is_no_error():
    assert len(PassAtKCredit().compare(TurnTable.of([])).advantage) == 0

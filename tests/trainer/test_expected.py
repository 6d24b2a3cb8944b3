"""Where a run stands against its recipe's band, by hand."""

import pytest

from agentrl.evals.statistics import Interval
from agentrl.recipe.schema import BandSettings
from agentrl.trainer.expected import Measured, standing, standing_json, standing_text

BAND = BandSettings(low=0.8, high=0.85, generated_tokens=1000)
TOKENS = {0: 0.0, 10: 600.0, 20: 1200.0, 30: 1800.0}


def measured(iteration, value, half=0.01):
    interval = Interval(
        value, value - half, value + half, error=half / 2, tasks=100, method="cluster_t"
    )
    return Measured(iteration, interval)


@pytest.mark.parametrize(
    ("value", "half", "place", "overlaps"),
    [
        (0.8, 0.01, "inside", True),
        (0.85, 0.01, "inside", True),
        (0.79, 0.02, "below", True),
        (0.7, 0.05, "below", False),
        (0.86, 0.01, "above", True),
        (0.9, 0.04, "above", False),
        (0.9, float("nan"), "above", False),
    ],
)
def test_the_first_evaluation_after_so_many_tokens_decides(value, half, place, overlaps):
    evaluations = [measured(0, 0.4), measured(10, 0.82), measured(20, value, half)]
    found = standing(BAND, [*evaluations, measured(30, 0.1)], TOKENS)
    assert (found.place, found.overlaps) == (place, overlaps)
    assert found.at.iteration == 20 and found.tokens == 1200


def test_a_run_that_was_stopped_earlier_has_not_reached_the_band():
    found = standing(BAND, [measured(0, 0.4), measured(10, 0.82)], {0: 0.0, 10: 600.0})
    assert (found.place, found.at, found.overlaps, found.tokens) == (
        "not reached",
        None,
        False,
        600,
    )
    assert standing_text(found, BAND, "em") == (
        "the expected band 80.0 % to 85.0 % of em does not apply: it is for 1,000 generated tokens,"
        " and no evaluation came after so many (the run generated 600)"
    )
    assert standing(BAND, [], {}).place == "not reached"


def test_the_verdict_says_what_may_be_chance():
    inside = standing(BAND, [measured(20, 0.82)], TOKENS)
    assert standing_text(inside, BAND, "em") == (
        "em 82.0 % at iteration 20 (1,200 generated tokens) is inside the expected band "
        "80.0 % to 85.0 % after 1,000 generated tokens"
    )
    near = standing_text(standing(BAND, [measured(20, 0.79, 0.02)], TOKENS), BAND, "em")
    assert "is below the expected band" in near and near.endswith("so this may be chance")
    far = standing_text(standing(BAND, [measured(20, 0.5)], TOKENS), BAND, "reward")
    assert "reward 0.500" in far and far.endswith("does not overlap the band")


def test_results_say_where_a_run_stands():
    assert standing_json(standing(BAND, [measured(20, 0.9)], TOKENS), BAND) == {
        "band": [0.8, 0.85],
        "after_generated_tokens": 1000,
        "place": "above",
        "overlaps": False,
        "iteration": 20,
        "score": 0.9,
        "generated_tokens": 1200,
    }

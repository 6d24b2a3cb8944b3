"""GAIA's rule on values worked out by hand, its known faults among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.graders.gaia import gaia_match

RIGHT = [
    ("17", "17"),
    (" 17.0 ", "17"),
    ("$17", "17"),
    ("1,234,567", "1234567"),
    ("89,706.00", "89706.00"),
    ("12.5%", "12.5"),
    ("1e3", "1000"),
    ("Right", "right"),
    ("St. Petersburg", "st petersburg"),
    ("rock-et ship!", "Rocketship"),
    ("U.S.A.", "USA"),
    ("b, e", "b, e"),
    ("B,E", "b, e"),
    ("1; 2.0; $3", "1, 2, 3"),
    ("a;b", "a,b"),
]
WRONG = [
    ("17.1", "17"),
    ("seventeen", "17"),
    ("17 kg", "17"),
    ("", "17"),
    ("inf", "17"),
    ("left", "right"),
    ("right or left", "right"),
    ("b", "b, e"),
    ("e, b", "b, e"),
    ("b, e, f", "b, e"),
    ("1, two", "1, 2"),
]
FAULTS = [
    ("1000", "1,000", 0.0),  # a list of 1 and 000
    ("1,000", "1,000", 1.0),
    ("1,5", "15", 1.0),
    ("5%", "5", 1.0),
    ("1_000", "1000", 1.0),
    ("C#", "C++", 1.0),
    ("U.S., France", "US, France", 0.0),
    ("US", "U.S.", 1.0),
]


@pytest.mark.parametrize(("found", "gold"), RIGHT)
def test_what_gaia_calls_right(found: str, gold: str) -> None:
    assert gaia_match(found, [gold]) == 1.0


@pytest.mark.parametrize(("found", "gold"), WRONG)
def test_what_gaia_calls_wrong(found: str, gold: str) -> None:
    assert gaia_match(found, [gold]) == 0.0


@pytest.mark.parametrize(("found", "gold", "score"), FAULTS)
def test_known_faults_are_kept(found: str, gold: str, score: float) -> None:
    assert gaia_match(found, [gold]) == score


def test_what_is_no_number_is_never_an_infinite_one() -> None:
    assert gaia_match("no idea", ["inf"]) == 0.0
    assert gaia_match("inf", ["inf"]) == 1.0
    assert gaia_match("nan", ["nan"]) == 0.0


def test_the_best_of_several_references_counts() -> None:
    assert gaia_match("4", ["four", "4"]) == 1.0
    assert gaia_match("5", ["four", "4"]) == 0.0


@pytest.mark.parametrize("answers", ["17", []])
def test_references_must_be_a_list_with_something_in_it(answers) -> None:
    with pytest.raises(DataError, match="a list of texts"):
        gaia_match("17", answers)


@given(st.text(max_size=20))
def test_anything_but_nan_matches_itself(text: str) -> None:
    try:
        # A reference that is a number and an answer whose signs are dropped: both must be numbers.
        expected = float(text) == float(text)
    except ValueError:
        items = text.replace(";", ",").split(",")
        expected = "," not in text.replace(";", ",") or not any(_is_nan(item) for item in items)
    assert gaia_match(text, [text]) == float(expected)


def _is_nan(text: str) -> bool:
    try:
        return float(text) != float(text)
    except ValueError:
        return False

"""Plain values between a program and its grader, and how they are compared."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, namedtuple
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.envs.code.grading import same_output, same_value
from agentrl.envs.code.inside import Opaque, decode, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(2000).map(lambda bits: 1 << bits)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
HASHED = SCALARS | st.tuples(SCALARS, SCALARS) | st.frozensets(SCALARS, max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(HASHED, max_size=3)
        | st.dictionaries(HASHED, inner, max_size=3)
    ),
    max_leaves=6,
)


def through(value: object) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


def alike(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


@settings(max_examples=25, deadline=None)
@given(VALUES)
def test_a_plain_value_comes_back_as_it_was(value: object) -> None:
    assert alike(through(value), value)


def test_numbers_that_json_lacks_come_back() -> None:
    assert math.isnan(through(math.nan))
    assert through([math.inf, -math.inf]) == [math.inf, -math.inf]
    assert through(10**4000) == 10**4000
    assert str(through(-0.0)) == "-0.0"


def test_a_subclass_of_a_plain_type_comes_back_as_the_plain_type() -> None:
    class Equal(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    point = namedtuple("point", "x y")
    assert alike(through(Equal(3)), 3)
    assert alike(through(Counter("aab")), {"a": 2, "b": 1})
    assert alike(through(OrderedDict(b=1)), {"b": 1})
    assert alike(through(point(1, 2)), (1, 2))
    assert alike(through({1: 2}.keys()), {1})
    assert list(through(iter([1, 2]))) == [1, 2]
    assert through(iter([1])) != [1]


def test_other_objects_equal_nothing() -> None:
    class All:
        def __eq__(self, other: object) -> bool:
            return True

    for value in (All(), All, print, Decimal(1), range(3)):
        found = through(value)
        assert isinstance(found, Opaque)
        assert found not in (1, None, "", [])


def test_numpy_values_come_back_as_plain_ones() -> None:
    numpy = pytest.importorskip("numpy")
    assert alike(through(numpy.int64(3)), 3)
    assert alike(through(numpy.array([[1.5], [2.0]])), [[1.5], [2.0]])


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"$": "tuple"},
        {"$": "what", "v": 1},
        {"$": ["list"], "v": 1},
        {"$": "set", "v": [[]]},
        {"$": "set", "v": 3},
        {"$": "dict", "v": [1]},
        {"$": "int", "v": "zz"},
        {"$": "int", "v": 3},
        {"$": "complex", "v": "1+"},
        {"$": "bytes", "v": "x"},
        {"$": "float", "v": "1e"},
        {"$": "decimal", "v": "1e999999999"},
        {"$": "fraction", "v": "1e999999999"},
    ],
)
def test_what_is_no_encoded_value_is_refused(wire: object) -> None:
    with pytest.raises(
        ValueError, match=r"an encoded value|of more than|base|hex|float|complex|invalid"
    ):
        decode(wire)


def test_sets_and_mappings_larger_than_allowed_are_refused() -> None:
    assert len(decode(encode(set(range(5))), hashed=5)) == 5
    for value in (set(range(6)), dict.fromkeys(range(6)), [[set(range(6))]]):
        with pytest.raises(ValueError, match="more than 5 items"):
            decode(encode(value), hashed=5)
    assert decode(encode(list(range(6))), hashed=5) == list(range(6))


def test_values_are_equal_as_python_says_or_loosely() -> None:
    assert same_value([1, 2.0], [1, 2], loose=False)
    assert not same_value((1,), [1], loose=False)
    assert not same_value(0.1 + 0.2, 0.3, loose=False)
    assert same_value((1, (2,)), [1, [2]], loose=True)
    assert same_value({"a": 0.1 + 0.2}, {"a": 0.3}, loose=True)
    assert same_value(2, 2.0, loose=True)
    assert not same_value([1], [1, 2], loose=True)
    assert not same_value({"a": 1}, {"b": 1}, loose=True)
    assert not same_value("1.0", 1.0, loose=True)
    assert not same_value(10**400, 1.0, loose=True)
    assert not same_value(math.nan, 1.0, loose=True)


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("6\n", "6", True),
        ("6", "6\n\n", True),
        ("  6  \n", "6\n", True),
        ("1 2\n3\n", "1 2 \n3", True),
        ("6.0\n", "6", True),
        ("1.50 2\n", "1.5 2.0\n", True),
        ("6\n6\n", "6\n", False),
        ("1\n2\n", "1 2\n", False),
        ("1  2\n", "1 2\n", True),
        ("a  b\n", "a b\n", False),
        ("Yes\n", "YES\n", False),
        ("", "6\n", False),
        ("", "", True),
        ("6.0000001\n", "6\n", False),
    ],
)
def test_outputs_agree_line_by_line_and_number_by_number(
    got: str, expected: str, same: bool
) -> None:
    assert same_output(got, expected) is same

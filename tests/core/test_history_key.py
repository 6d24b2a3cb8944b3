"""State keys made from a history."""

from __future__ import annotations

import itertools

from agentrl.core.env import history_key


def test_a_history_key_tells_histories_apart_however_they_are_cut() -> None:
    histories = [(), ("",), ("", ""), ("ab",), ("a", "b"), ("b", "a"), ("a", "", "b"), ("\ud800",)]
    keys = [history_key(*one) for one in histories]
    assert keys == [history_key(*one) for one in histories]
    assert all(one != other for one, other in itertools.combinations(keys, 2))
    assert {len(bytes.fromhex(one)) for one in keys} == {16}

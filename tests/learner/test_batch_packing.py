"""Packing rows: what goes in comes out, in rows that are not too long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.learner.batch import Row, join_rows, pack_rows


def sequence(ids: list[int]) -> Row:
    trained = np.asarray(ids, np.float32) / 7
    return Row.sequence(ids, weight=trained, positive=trained + 1, behavior_logprobs=-trained)


def test_first_fit_by_decreasing_length():
    rows = pack_rows([sequence([1] * n) for n in (2, 5, 3, 4)], 7)
    assert [row.segment_lengths for row in rows] == [(5, 2), (4, 3)]


def test_positions_restart_and_segments_count_up():
    row = join_rows([sequence([5, 6, 7]), sequence([8]), sequence([9, 9])])
    assert row.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert row.segments.tolist() == [0, 0, 0, 1, 2, 2]
    assert row.segment_lengths == (3, 1, 2)
    nested = join_rows([row, row])
    assert nested.segment_lengths == (3, 1, 2, 3, 1, 2)
    assert nested.segments.dtype == np.int32


def test_a_sequence_that_is_too_long_gets_its_own_row_uncut():
    rows = pack_rows([sequence([1, 2]), sequence([3] * 9), sequence([])], 4)
    assert [len(row) for row in rows] == [9, 2]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ContractError, match="one length"):
        Row.sequence([1, 2], weight=[1.0])


@given(st.lists(st.lists(st.integers(0, 99), max_size=12), max_size=20), st.integers(1, 30))
def test_packing_keeps_every_sequence_whole(sequences: list[list[int]], pack_tokens: int):
    rows = pack_rows([sequence(ids) for ids in sequences], pack_tokens)
    found = []
    for row in rows:
        assert len(row) <= pack_tokens or len(row.segment_lengths) == 1
        ends = np.cumsum(row.segment_lengths)
        for start, end in zip(ends - row.segment_lengths, ends, strict=True):
            ids = row.token_ids[start:end].tolist()
            expected = sequence(ids)
            for name in ("positions", "weight", "positive", "negative", "behavior_logprobs"):
                assert np.array_equal(getattr(row, name)[start:end], getattr(expected, name))
            found.append(ids)
    assert sorted(found) == sorted(ids for ids in sequences if ids)

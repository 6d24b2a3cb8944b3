"""The weight probe names what went wrong."""

from __future__ import annotations

import numpy as np
import pytest

from agentrl.core.errors import ContractError, WeightSyncError
from agentrl.engine.probe import PROBE_BOUNDS, check_probe

BOUND = PROBE_BOUNDS["float32"]
RNG = np.random.default_rng(0)
OLD = [RNG.normal(-3, 1, 20).astype(np.float32) for _ in range(3)]
NEW = [one + RNG.normal(0, 0.3, 20).astype(np.float32) for one in OLD]


def test_agreement_reports_mean_and_largest_difference():
    engine = [np.array([-1.0, -2.0], np.float32), np.array([-3.0], np.float32)]
    learner = [np.array([-1.0, -2.0003], np.float32), np.array([-3.0006], np.float32)]
    report = check_probe(engine, learner, bound=BOUND, version=3)
    assert report.mean == pytest.approx(3e-4, rel=1e-3)
    assert report.largest == pytest.approx(6e-4, rel=1e-3)


def test_an_engine_that_kept_the_previous_weights_is_named():
    with pytest.raises(WeightSyncError, match=r"kept old weights: after the sync to version 7"):
        check_probe(OLD, NEW, bound=BOUND, version=7, previous_logprobs=OLD)


def test_a_skipped_load_is_found_even_when_the_update_is_within_the_bound():
    noise = [RNG.normal(0, 1e-7, 20).astype(np.float32) for _ in OLD]
    moved = [one + np.float32(2e-4) for one in OLD]
    engine = [one + two for one, two in zip(OLD, noise, strict=True)]
    check_probe(engine, moved, bound=BOUND, version=7)
    with pytest.raises(WeightSyncError, match="kept old weights"):
        check_probe(engine, moved, bound=BOUND, version=7, previous_logprobs=OLD)


def test_an_update_that_moved_nothing_is_not_an_error():
    assert check_probe(OLD, OLD, bound=BOUND, version=1, previous_logprobs=OLD).largest == 0


@pytest.mark.parametrize(
    ("engine", "previous", "cause"),
    [
        ([one + np.float32(5 * BOUND) for one in NEW], None, "numerical"),
        ([one + np.float32(1.0) for one in NEW], None, "holds other weights"),
        ([(a + b) / 2 + (a - b) * 0.2 for a, b in zip(OLD, NEW, strict=True)], OLD, "kept their"),
        ([one * np.nan for one in NEW], None, "not finite"),
    ],
)
def test_other_disagreements_say_their_likely_cause(engine, previous, cause):
    with pytest.raises(WeightSyncError, match=cause):
        check_probe(engine, NEW, bound=BOUND, version=2, previous_logprobs=previous)


def test_different_numbers_of_tokens_are_a_broken_contract():
    with pytest.raises(ContractError, match="60 log-probabilities from the engine and 40"):
        check_probe(OLD, NEW[:2], bound=BOUND, version=1)
    with pytest.raises(ContractError):
        check_probe([], [], bound=BOUND, version=1)

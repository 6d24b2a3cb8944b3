"""Does the engine hold the weights that it was given? Asked by tokens that both sides score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from agentrl.core.errors import ContractError, WeightSyncError
from agentrl.core.types import Float32

PROBE_BOUNDS: Final = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""Largest difference of one probe log-probability that numerics can explain, by the engine's dtype.

float32: two implementations of the same weights differ by some 1e-6 a token (vLLM's CPU package
against transformers, 3 layers: 5e-7 on average, 5e-6 at most); 1e-3 leaves room for depth and fused
kernels. One small update may move probes by less, so the check also asks whether the engine is
nearer to the *previous* weights. bfloat16 keeps 8 bits, so that logits of size 20 are off by up to
0.06 and layers add theirs (the same two engines, 3 layers: 0.006 on average, 0.04 at most); there
a skipped update smaller than that passes until the differences of several have added up. float16
has 3 bits more.
"""


class ProbeReport(NamedTuple):
    """Absolute differences of probe log-probabilities, in nats, over all probe tokens."""

    mean: float
    largest: float


def check_probe(
    engine_logprobs: Sequence[Float32],
    learner_logprobs: Sequence[Float32],
    *,
    bound: float,
    version: int,
    previous_logprobs: Sequence[Float32] | None = None,
) -> ProbeReport:
    """Compare the engine's and the learner's log-probabilities of the same probe sequences.

    Arrays are (T_i - 1,) for sequence i, at temperature 1. `previous_logprobs` are the learner's
    for the weights before this sync; with them an engine that kept those is named as such, even
    when the update was so small that all three agree within `bound`.

    Raises:
        WeightSyncError: the engine's weights are not those of `version`; says the likely cause.
        ContractError: the two sides scored different numbers of tokens, or none.
    """
    engine, learner = _flat(engine_logprobs), _flat(learner_logprobs)
    if engine.shape != learner.shape or not engine.size:
        raise ContractError(
            f"a probe needs the same tokens from both, got {engine.size} log-probabilities from "
            f"the engine and {learner.size} from the learner"
        )
    report = _report(engine, learner)
    old = None if previous_logprobs is None else _report(engine, _flat(previous_logprobs))
    if old is not None and _kept_old(report, old):
        raise WeightSyncError(
            f"the engine kept old weights: after the sync to version {version} its probe "
            f"log-probabilities are those of version {version - 1} (mean difference "
            f"{old.mean:.1e}), not those of version {version} (mean {report.mean:.1e}); the load "
            "did not take effect"
        )
    if not report.largest <= bound:  # a nan is beyond any bound
        raise WeightSyncError(
            f"after the sync to version {version} engine and learner disagree: mean difference "
            f"{report.mean:.2g}, largest {report.largest:.2g} nats over {engine.size} probe "
            f"tokens, bound {bound:.2g}; {_cause(report, old, bound)}"
        )
    return report


def _flat(arrays: Sequence[Float32]) -> Float32:
    if not arrays:
        return np.zeros(0, np.float32)
    return np.concatenate([np.asarray(one, np.float32).ravel() for one in arrays])


def _report(engine: Float32, other: Float32) -> ProbeReport:
    difference = np.abs(engine.astype(np.float64) - other.astype(np.float64))
    return ProbeReport(float(difference.mean()), float(difference.max()))


def _kept_old(new: ProbeReport, old: ProbeReport) -> bool:
    """Nearer to the previous weights than to the new by an order of magnitude."""
    return new.mean > 0 and old.mean * 10 < new.mean


def _cause(report: ProbeReport, old: ProbeReport | None, bound: float) -> str:
    if not np.isfinite(report.largest):
        return "a log-probability is not finite: the weights themselves may have diverged"
    if report.largest <= 20 * bound:
        return (
            "a difference of this size is numerical (dtype or attention kernels differ): use one "
            "dtype on both sides, or raise the bound if the precision is meant"
        )
    if old is not None and old.mean < report.mean:
        return "some tensors were loaded and others kept their old values"
    return (
        "the engine holds other weights: another version, another model, or tensors that the load "
        "left out (tied embeddings are the usual ones)"
    )

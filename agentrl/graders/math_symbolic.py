"""What a grading process runs: math-verify and sympy, for what the quick comparison cannot read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

_SAME, _DIFFERENT = 1e-12, 1e-6
_WARM = (r"\int_0^1 x dx", r"\sum_{n=1}^{\infty} \frac{1}{n^2}", r"\lim_{x \to 0} x", "0.5")


def prepare() -> None:
    """Import what takes long, once, before the workers are forked; sympy does so at first use."""
    for text in _WARM:
        answer({"gold": r"\frac{1}{2}", "answer": text})


def answer(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether `answer` is `gold` to sympy; `{"unread": "gold"}` where math-verify reads no gold.

    Both are read by math-verify. Two numbers are compared by value to 20 digits, all else and
    what is in between as math-verify does. Its own timeouts are off (they are signals): the
    deadline is that of the process.
    """
    verifier = importlib.import_module("math_verify")
    config = [verifier.LatexExtractionConfig(), verifier.ExprExtractionConfig()]
    gold, said = (
        verifier.parse(
            f"\\boxed{{{payload[side]}}}",
            extraction_config=config,
            parsing_timeout=None,
            fallback_mode="no_fallback",
        )
        for side in ("gold", "answer")
    )
    if not gold:
        return {"unread": "gold"}
    if not said:
        return {"verdict": False}
    verdict = _by_value(gold[0], said[0])
    if verdict is None:
        verdict = bool(verifier.verify(gold, said, timeout_seconds=None))
    return {"verdict": verdict}


def _by_value(gold: Any, said: Any) -> bool | None:
    """Whether two expressions without symbols are one number; None where that does not tell."""
    for one in (gold, said):
        if not getattr(one, "is_number", False) or not hasattr(one, "evalf"):
            return None
    values = [one.evalf(20) for one in (gold, said)]
    if not all(one.is_Float or one.is_Integer or one.is_Rational for one in values):
        return None
    difference, size = abs(values[0] - values[1]), max(abs(values[0]), abs(values[1]))
    if difference <= _SAME * size:
        return True
    return False if difference > _DIFFERENT * size else None

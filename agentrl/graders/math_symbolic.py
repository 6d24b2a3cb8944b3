"""What a grading process runs: math-verify and sympy, for what the quick comparison cannot read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def prepare() -> None:
    """Import what takes long, once, before the workers are forked; and warm the parser."""
    answer({"gold": r"\frac{1}{2}", "answer": "0.5"})


def answer(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether math-verify takes `answer` for `gold`; `{"unread": "gold"}` where it reads no gold.

    Its own timeouts are off (they are signals): the deadline is that of the process.
    """
    verifier = importlib.import_module("math_verify")
    config = [verifier.LatexExtractionConfig(), verifier.ExprExtractionConfig()]
    read = [
        verifier.parse(
            f"\\boxed{{{payload[side]}}}",
            extraction_config=config,
            parsing_timeout=None,
            fallback_mode="no_fallback",
        )
        for side in ("gold", "answer")
    ]
    if not read[0]:
        return {"unread": "gold"}
    if not read[1]:
        return {"verdict": False}
    same = verifier.verify(*read, timeout_seconds=None)
    return {"verdict": bool(same)}

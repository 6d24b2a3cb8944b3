"""All graders of short answers at once, for environments and for stored answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentrl.graders.gaia import gaia_match
from agentrl.graders.qa import cover_match, exact_match, token_f1

SHORT_ANSWER_SCORES: Final = ("em", "f1", "cover_em", "gaia")
"""The names of `short_answer_scores`."""


def short_answer_scores(prediction: str | None, answers: Sequence[str]) -> dict[str, float]:
    """`em`, `f1` (HotpotQA's), `cover_em` and `gaia` of a short answer; 0.0 where it is None."""
    if prediction is None:
        return dict.fromkeys(SHORT_ANSWER_SCORES, 0.0)
    return {
        "em": exact_match(prediction, answers),
        "f1": token_f1(prediction, answers, verdicts=True),
        "cover_em": cover_match(prediction, answers),
        "gaia": gaia_match(prediction, answers),
    }

"""Graders of short answers: exact match, token F1 and cover match, as SQuAD normalises them.

Known limits of the normalisation, kept because published figures contain them: `3.5` equals `35`,
`C++` equals `C#`, `Vitamin A` equals `vitamin`; accents are not folded; `’` and `–` stay.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from agentrl.core.errors import DataError

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_VERDICTS = frozenset({"yes", "no", "noanswer"})


def normalize_answer(text: str) -> str:
    """Lower case, ASCII punctuation deleted, articles replaced by a space, white space collapsed.

    SQuAD (arXiv:1606.05250), in the order of its official script.
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 where the prediction equals one of `answers` after normalisation, else 0.0."""
    found = normalize_answer(prediction)
    return float(any(found == normalize_answer(answer) for answer in _some(answers)))


def token_f1(prediction: str, answers: Sequence[str], *, verdicts: bool = False) -> float:
    """The harmonic mean of token precision and recall, tokens as a multiset; best of `answers`.

    Where a side is empty after normalisation the score is 1.0 if both are, else 0.0 (SQuAD 2.0).
    `verdicts` adds HotpotQA's rule (arXiv:1809.09600): where either side is yes, no or noanswer,
    only equality scores.
    """
    found = normalize_answer(prediction)
    return max(
        _pair_f1(found, normalize_answer(answer), verdicts=verdicts) for answer in _some(answers)
    )


def cover_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 where one of `answers` is a substring of the prediction after normalisation, else 0.0.

    "acc" and sub-EM elsewhere. A list of guesses games it: report it, do not train on it. An
    answer that is empty after normalisation is covered by an empty prediction only.
    """
    found = normalize_answer(prediction)
    golds = [normalize_answer(answer) for answer in _some(answers)]
    return float(any(gold in found if gold else not found for gold in golds))


def _pair_f1(found: str, gold: str, *, verdicts: bool) -> float:
    if found == gold:
        return 1.0
    if verdicts and (found in _VERDICTS or gold in _VERDICTS):
        return 0.0
    found_tokens, gold_tokens = found.split(), gold.split()
    shared = (Counter(found_tokens) & Counter(gold_tokens)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(found_tokens), shared / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def _some(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str):
        raise DataError(f"answers must be a list of strings, got the one string {answers!r}")
    if not answers:
        raise DataError("an answer cannot be graded against no reference answers")
    return answers

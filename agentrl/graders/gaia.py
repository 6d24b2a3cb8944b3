"""GAIA's grader: numbers as numbers, lists item by item, other text nearly exactly.

The rule of the benchmark's leaderboard (arXiv:2311.12983: "quasi exact match"), with one
difference: what is no number never equals a number, where the published code reads it as
infinity. Its known faults, kept because published figures contain them:

- a reference with a comma is a list, so `1,000` is the items 1 and 000, and the answer `1000` is
  wrong;
- a number that carries a unit or a word is wrong: `5 km` and `about 5` are not `5`;
- `$`, `%` and `,` are dropped from an answer wherever they stand: `5%` equals `5`, and `1,5` is 15;
- what Python reads as a number is one: `1e3` equals `1000`, and so does `1_000`;
- lists must be in order, and keep their punctuation: `U.S.` is not `US` there, but is elsewhere;
- outside of lists `C++` equals `C#`, and a date in another form is another answer.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from agentrl.core.errors import DataError

_SPACES = re.compile(r"\s")
_SEPARATORS = re.compile(r"[,;]")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_SIGNS = str.maketrans("", "", "$%,")


def gaia_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 where the prediction matches one of `answers` by GAIA's rule, else 0.0."""
    if isinstance(answers, str) or not answers:
        raise DataError(f"answers must be a list of texts with at least one, got {answers!r}")
    return float(any(_matches(prediction, answer) for answer in answers))


def _matches(found: str, gold: str) -> bool:
    if _number(gold) is not None:
        return _same_number(found, gold)
    if not _SEPARATORS.search(gold):
        return _plain(found).translate(_NO_PUNCTUATION) == _plain(gold).translate(_NO_PUNCTUATION)
    found_items, gold_items = _SEPARATORS.split(found), _SEPARATORS.split(gold)
    if len(found_items) != len(gold_items):
        return False
    pairs = zip(found_items, gold_items, strict=True)
    return all(
        _same_number(item, wanted)
        if _number(wanted) is not None
        else _plain(item) == _plain(wanted)
        for item, wanted in pairs
    )


def _same_number(found: str, gold: str) -> bool:
    number = _number(found.translate(_NO_SIGNS))
    return number is not None and number == _number(gold)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _plain(text: str) -> str:
    return _SPACES.sub("", text).lower()

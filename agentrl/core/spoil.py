"""Actions made wrong on purpose: what a grader must not reward."""

from __future__ import annotations

import re

_ALPHABETS = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def spoil(action: str) -> str:
    r"""`action` with every letter and digit outside of its tags moved on by one.

    `\boxed` stays too: an answer that is wrong and well marked says more about a grader.
    """

    def moved(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith(("<", "\\")) else "".join(map(_next, match[0]))

    return re.sub(r"<[^<>]*>|\\boxed\b|[^<>\\]+", moved, action)


def _next(character: str) -> str:
    for alphabet in _ALPHABETS:
        if character in alphabet:
            return alphabet[(alphabet.index(character) + 1) % len(alphabet)]
    return character

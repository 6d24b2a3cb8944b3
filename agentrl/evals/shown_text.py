"""Text of a policy or an environment made safe to read: nothing hidden, reordered or endless."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_MARKS_KEPT = 3


class Clip(NamedTuple):
    """A text's beginning and end, and how many characters between them are left out."""

    head: str
    left_out: int
    tail: str

    @property
    def text(self) -> str:
        """Both ends, with a note of what is missing between them."""
        if not self.left_out:
            return self.head
        return f"{self.head}\n[{self.left_out:,} characters left out]\n{self.tail}"


def visible(text: str) -> str:
    """`text` with each character that a reader would not see, or that moves others, spelled out.

    Control characters, marks that change the direction of writing, spaces without width and lone
    surrogates become `[U+202E]` and the like; line ends and tabs stay, as does every letter of
    every script. Of the combining marks on one letter the first three stay.
    """
    return _stacks_cut(_UNSEEN.sub(_spelled, text.replace("\r\n", "\n")))


def clipped(text: str, limit: int) -> Clip:
    """The first two thirds and the last third of `limit` characters of `text`, made visible."""
    if len(text) <= limit:
        return Clip(visible(text), 0, "")
    tail = limit // 3
    head = limit - tail
    return Clip(visible(text[:head]), len(text) - limit, visible(text[-tail:] if tail else ""))


def encodable(text: str) -> str:
    """`text` with U+FFFD in place of lone surrogates, which no UTF-8 file can hold."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _spelled(found: re.Match[str]) -> str:
    return f"[U+{ord(found[0]):04X}]"


def _stacks_cut(text: str) -> str:
    """`text` with long stacks of combining marks, which paint over the lines around, cut short."""
    if text.isascii():
        return text
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _MARKS_KEPT:
            kept.append(character)
    return "".join(kept)

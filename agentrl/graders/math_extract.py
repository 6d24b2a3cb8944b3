"""Finds the final answer in what a policy wrote; only its own text is to be handed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

Marker: TypeAlias = Literal["boxed", "hash", "tag", "phrase", "free"]
"""Where an answer may stand; see `extract_answer`."""

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_TAG = re.compile(r"</?answer>")
_HASH = re.compile(r"####[ \t]*(\S[^\n]*)")
_PHRASE = re.compile(
    r"\b(?:answers?|results?|solutions?)[ \t]*(?:(?:is|are|was)\b|=|:)[ \t]*:?[ \t]*"
    r"([^\s:=][^\n]*)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?<=\S)(?:[.!?](?=[\s*\"')]|$)|,?\s+(?:because|since|so|as|which)\b).*", re.S
)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_SPACES = re.compile(r"[ \t\r\f\v]{2,}")
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?(?:\s?\\?%)?"
)


def extract_answer(text: str, accept: Sequence[Marker] = ("boxed",)) -> str | None:
    r"""The last final answer of `text` under the first of the markers `accept` that has one.

    `boxed` is the last *closed* `\boxed{...}` (braces matched; an unclosed one never counts);
    `hash` the rest of the last line after `####`; `tag` the last `<answer>...</answer>`, of whose
    content a box is taken where it holds one; `phrase` what follows the last "the answer is";
    `free` the last formula or number. Nothing inside `<think>` counts. None: there is no answer.
    """
    said = _after_thought(text)
    for marker in accept:
        found = _FINDERS[marker](said)
        if found is not None and found.strip():
            return found.strip()
    return None


def _after_thought(text: str) -> str:
    """What stands after the last thought; nothing where one is left open."""
    opened, closed = text.rfind("<think>"), text.rfind("</think>")
    if opened > closed:
        return ""
    return text[closed + len("</think>") :] if closed >= 0 else text


def _boxed(text: str) -> str | None:
    # One pass with a stack: an unclosed box costs no second look, however many there are.
    found: str | None = None
    opened: list[int | None] = []
    for match in _BRACE.finditer(text):
        mark = match[0]
        if mark == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found = text[start : match.start()]
        elif mark == "{":
            opened.append(None)
        elif len(mark) > 2:
            opened.append(match.end())
    return found


def _hash(text: str) -> str | None:
    found = _HASH.findall(text)
    return str(found[-1]) if found else None


def _tag(text: str) -> str | None:
    start: int | None = None
    found: str | None = None
    for match in _TAG.finditer(text):
        if match[0] == "<answer>":
            start = match.end()
        elif start is not None:
            found, start = text[start : match.start()], None
    if found is None:
        return None
    inner = _boxed(found)
    return found if inner is None else inner


def _phrase(text: str) -> str | None:
    # Runs of spaces would be tried again from each of them.
    found = _PHRASE.findall(_SPACES.sub(" ", text))
    if not found:
        return None
    said = str(found[-1])
    formulas = list(_MATH.finditer(said))
    if formulas and formulas[0].start() == 0:
        end = formulas[0].end()
        # A list of formulas stays together.
        for one in formulas[1:]:
            if said[end : one.start()].strip() not in (",", "and", "or", ", and", ", or"):
                break
            end = one.end()
        return said[:end]
    return _CLAUSE.sub("", said).strip().strip("*_").strip()


def _free(text: str) -> str | None:
    formulas = list(_MATH.finditer(text))
    numbers = list(_NUMBER.finditer(text))
    if formulas and (not numbers or formulas[-1].end() >= numbers[-1].end()):
        inner = next(group for group in formulas[-1].groups() if group is not None)
        return inner.rstrip(" .,;")
    return numbers[-1][0] if numbers else None


_FINDERS: dict[Marker, Callable[[str], str | None]] = {
    "boxed": _boxed,
    "hash": _hash,
    "tag": _tag,
    "phrase": _phrase,
    "free": _free,
}

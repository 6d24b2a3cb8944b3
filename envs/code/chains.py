"""Questions about lists that a session holds: chains of two or three short statements.

A chain is made of a name for each list, and steps of which each uses what an earlier one left in
the session: a variable, or a list that was changed in place. Evaluation chains have other names,
other numbers and other combinations of operations than training ones.
"""

from __future__ import annotations

import builtins
import keyword
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

Shape: TypeAlias = Literal["constant", "pair", "append"]
Split: TypeAlias = Literal["train", "eval"]

REDUCTIONS: Mapping[str, str] = {
    "sum": "sum",
    "max": "largest",
    "min": "smallest",
    "len": "length",
}
"""Python's functions and the words for them in a question."""

_FUNCTIONS: Mapping[str, Callable[[Sequence[int]], int]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "len": len,
}
_OPERATORS = ("+", "-", "*")
_HELD_OUT = 4
"""One of so many names and combinations is for evaluation."""


class Composition(NamedTuple):
    """What a chain does: its shape, its two reductions and its operator, "" where it has none."""

    shape: Shape
    first: str
    second: str
    operator: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A question, the lists that the session holds, and the statements that lead to the answer."""

    question: str
    lists: Mapping[str, Sequence[int]]
    statements: tuple[str, ...]
    answer: int


def chains(split: Split, rng: random.Random) -> Iterator[Chain]:
    """An endless stream of chains of a split, all compositions of it equally likely."""
    known, names = compositions(split), list_names(split)
    while True:
        yield make_chain(rng.choice(known), rng.sample(names, 2), rng)


def make_chain(
    composition: Composition,
    names: Sequence[str],
    rng: random.Random,
    *,
    slips: Mapping[str, str] | None = None,
) -> Chain:
    """A chain with numbers drawn from `rng`; `slips` replaces reductions in its statements.

    The question stays as it is, and the answer is the one that the statements give.
    """
    done = {**{one: one for one in REDUCTIONS}, **(slips or {})}
    x, y = names
    lists = {name: [rng.randint(1, 20) for _ in range(rng.randint(3, 6))] for name in (x, y)}
    shape, first, second, operator = composition
    constant = rng.randint(2, 9)
    a = _FUNCTIONS[done[first]](lists[x])
    question = f"`a` is the {REDUCTIONS[first]} of `{x}`."
    statements = [f"a = {done[first]}({x})"]
    if shape == "constant":
        last = f"a {operator} {constant}"
        answer = _combined(a, operator, constant)
    elif shape == "pair":
        last = f"a {operator} b"
        question += f" `b` is the {REDUCTIONS[second]} of `{y}`."
        statements.append(f"b = {done[second]}({y})")
        answer = _combined(a, operator, _FUNCTIONS[done[second]](lists[y]))
    else:
        question += f" Append `a` to `{y}`. What is the {REDUCTIONS[second]} of `{y}`?"
        statements += [f"{y}.append(a)", f"{done[second]}({y})"]
        return Chain(question, lists, tuple(statements), _FUNCTIONS[done[second]]([*lists[y], a]))
    statements.append(last)
    return Chain(f"{question} What is `{last}`?", lists, tuple(statements), answer)


def _combined(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


@cache
def compositions(split: Split) -> tuple[Composition, ...]:
    """The compositions of a split; no one is in both."""
    reductions = tuple(REDUCTIONS)
    pairs = tuple(product(reductions, reductions))
    found = [
        *(Composition("constant", one, "", sign) for one, sign in product(reductions, _OPERATORS)),
        *(Composition("pair", *pair, sign) for pair, sign in product(pairs, _OPERATORS)),
        *(Composition("append", *pair, "") for pair in pairs),
    ]
    return tuple(one for one in found if _split_of(" ".join(one)) == split)


@cache
def list_names(split: Split) -> tuple[str, ...]:
    """Names of three letters that mean nothing to Python; no one is in both splits."""
    consonants = "bdfgklmnprstvz"
    found = map("".join, product(consonants, "aeiou", consonants))
    taken = {*keyword.kwlist, *dir(builtins)}
    return tuple(name for name in found if name not in taken and _split_of(name) == split)


def _split_of(name: str) -> Split:
    return "eval" if zlib.crc32(name.encode()) % _HELD_OUT == 0 else "train"

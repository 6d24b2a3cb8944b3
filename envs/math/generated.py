"""Problems of our own: a dozen kinds, drawn from a fixed seed, their answers computed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from .records import Problem

COUNTS: Final = {"train": 600, "eval": 120}


class _Drawn(NamedTuple):
    text: str
    answer: str
    worked: str
    code: str
    several: bool = False


@lru_cache(maxsize=2)
def generated_problems(split: str) -> Sequence[Problem]:
    """The problems of `split`, the kinds taking turns; no problem of one split is in the other."""
    taken = {one.text for one in generated_problems("train")} if split == "eval" else set[str]()
    rng = random.Random(f"math/problems/{split}")
    found: list[Problem] = []
    kinds = list(_KINDS.items())
    while len(found) < COUNTS[split]:
        name, draw = kinds[len(found) % len(kinds)]
        drawn = draw(rng)
        if drawn.text in taken:
            continue
        taken.add(drawn.text)
        found.append(Problem(f"{split}-{name}-{len(found)}", **drawn._asdict()))
    return found


def _latex(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _signed(value: int) -> str:
    """`+ 3` or `- 3`, as a later term of a sum."""
    return f"- {-value}" if value < 0 else f"+ {value}"


def _nonzero(rng: random.Random, high: int) -> int:
    return rng.choice((-1, 1)) * rng.randint(1, high)


def _arithmetic(rng: random.Random) -> _Drawn:
    a, b, c = rng.randint(11, 99), rng.randint(3, 29), rng.randint(11, 199)
    value = a * b - c
    return _Drawn(
        f"What is ${a} \\times {b} - {c}$?",
        str(value),
        f"First {a} * {b} = {a * b}, and {a * b} - {c} = {value}.",
        f"print({a} * {b} - {c})",
    )


def _shopping(rng: random.Random) -> _Drawn:
    pens, price, paid = rng.randint(3, 19), rng.randint(2, 15), rng.choice((200, 300, 400))
    what = rng.choice(("notebooks", "plants", "tickets", "cups", "lamps"))
    left = paid - pens * price
    return _Drawn(
        f"Ana buys {pens} {what} at {price} dollars each and pays with {paid} dollars. How many "
        "dollars does she get back?",
        str(left),
        f"The {what} cost {pens} * {price} = {pens * price} dollars, so she gets back "
        f"{paid} - {pens * price} = {left} dollars.",
        f"print({paid} - {pens} * {price})",
    )


def _fractions(rng: random.Random) -> _Drawn:
    one, two = (Fraction(3 * rng.randint(1, 9) + 1, 3 * rng.randint(1, 4)) for _ in range(2))
    value = one + two
    return _Drawn(
        f"Compute ${_latex(one)} + {_latex(two)}$.",
        _latex(value),
        f"Over the common denominator {math.lcm(one.denominator, two.denominator)} the sum is "
        f"{value}.",
        f"from fractions import Fraction\nprint(Fraction('{one}') + Fraction('{two}'))",
    )


def _percent(rng: random.Random) -> _Drawn:
    share, whole = rng.choice((5, 12, 15, 20, 25, 35, 60, 75)), 20 * rng.randint(2, 60)
    part = Fraction(share * whole, 100)
    return _Drawn(
        f"{_latex(part)} is what percent of {whole}?",
        f"{share}\\%",
        f"{part} / {whole} = {share}/100.",
        f"print({part.numerator} / {part.denominator} / {whole} * 100)",
    )


def _linear(rng: random.Random) -> _Drawn:
    a, b, c = rng.randint(2, 12), _nonzero(rng, 20), _nonzero(rng, 30)
    value = Fraction(c - b, a)
    return _Drawn(
        f"Solve ${a}x {_signed(b)} = {c}$ for $x$.",
        f"x = {_latex(value)}",
        f"So {a}x = {c - b}, and x = {value}.",
        f"from fractions import Fraction\nprint(Fraction({c - b}, {a}))",
    )


def _quadratic(rng: random.Random) -> _Drawn:
    one, two = rng.sample(range(-12, 13), 2)
    b, c = -(one + two), one * two
    return _Drawn(
        f"Find all real solutions of $x^2 {_signed(b)}x {_signed(c)} = 0$.",
        f"{one},{two}",
        f"It factors: the roots have the sum {-b} and the product {c}.",
        f"print([x for x in range(-20, 21) if x * x + {b} * x + {c} == 0])",
        several=True,
    )


def _surd(rng: random.Random) -> _Drawn:
    factor, root = rng.randint(2, 9), rng.choice((2, 3, 5, 6, 7, 10, 11, 13))
    return _Drawn(
        f"Simplify $\\sqrt{{{factor * factor * root}}}$.",
        f"{factor} \\sqrt{{{root}}}",
        f"{factor * factor * root} = {factor}^2 * {root}.",
        f"print(({factor * factor * root} / {root}) ** 0.5)",
    )


def _system(rng: random.Random) -> _Drawn:
    x, y, a, b = _nonzero(rng, 9), _nonzero(rng, 9), rng.randint(2, 9), rng.randint(2, 9)
    plus, second = x + y, a * x - b * y
    return _Drawn(
        f"Solve the system $x + y = {plus}$, ${a}x - {b}y = {second}$. Give the pair $(x, y)$.",
        f"({x},{y})",
        f"With y = {plus} - x the second equation is {a + b}x = {second + b * plus}, so x = {x} "
        f"and y = {y}.",
        f"x = {second + b * plus} // {a + b}\nprint((x, {plus} - x))",
    )


def _inequality(rng: random.Random) -> _Drawn:
    middle, reach = rng.randint(-15, 15), rng.randint(1, 12)
    closed = rng.random() < 0.5
    low, high = middle - reach, middle + reach
    left, right = "[]" if closed else "()"
    relation = "\\le" if closed else "<"
    return _Drawn(
        f"Solve $|x {_signed(-middle)}| {relation} {reach}$. Give an interval.",
        f"{left}{low}, {high}{right}",
        f"x lies within {reach} of {middle}.",
        f"print({middle} - {reach}, {middle} + {reach})",
    )


def _derivative(rng: random.Random) -> _Drawn:
    a, n, b = rng.randint(2, 9), rng.randint(3, 7), _nonzero(rng, 9)
    return _Drawn(
        f"Differentiate $f(x) = {a}x^{n} {_signed(b)}x$.",
        f"f'(x) = {a * n}x^{{{n - 1}}} {_signed(b)}",
        "Each term is differentiated by the power rule.",
        f"print({a} * {n}, {n} - 1, {b})",
    )


def _series(rng: random.Random) -> _Drawn:
    first, step, count = rng.randint(1, 30), rng.randint(2, 12), rng.randint(10, 60)
    last = first + step * (count - 1)
    value = count * (first + last) // 2
    return _Drawn(
        f"What is the sum of the first {count} terms of the arithmetic sequence "
        f"${first}, {first + step}, {first + 2 * step}, \\ldots$?",
        str(value),
        f"The last term is {last}, so the sum is {count} * ({first} + {last}) / 2 = {value}.",
        f"print(sum(range({first}, {last + 1}, {step})))",
    )


def _divisors(rng: random.Random) -> _Drawn:
    number = rng.randint(24, 400)
    value = sum(number % one == 0 for one in range(1, number + 1))
    return _Drawn(
        f"How many positive divisors does {number} have?",
        str(value),
        f"Counting them all gives {value}.",
        f"print(sum({number} % d == 0 for d in range(1, {number} + 1)))",
    )


_KINDS: Final[dict[str, Callable[[random.Random], _Drawn]]] = {
    "arithmetic": _arithmetic,
    "shopping": _shopping,
    "fractions": _fractions,
    "percent": _percent,
    "linear": _linear,
    "quadratic": _quadratic,
    "surd": _surd,
    "system": _system,
    "inequality": _inequality,
    "derivative": _derivative,
    "series": _series,
    "divisors": _divisors,
}

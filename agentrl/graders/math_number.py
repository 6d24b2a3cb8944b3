"""Decides whether two expressions have the same value: exactly, modulo a prime, or to 40 digits.

Rational numbers are compared exactly. Rational functions are compared at random points modulo a
prime of 61 bits, where different ones agree with a chance below 1e-12 (Schwartz, Zippel). All else
is evaluated by mpmath: constants to 40 significant digits and more, functions at fixed points.
What would grow too large is refused before anything is computed.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from agentrl.core.errors import SetupError
from agentrl.graders.math_tree import Node

MAX_BITS: Final = 20_000
"""Numbers of more bits are not computed exactly."""
MAX_LOG2: Final = 2.0**24
"""Numbers beyond two to this are not computed at all."""
PRIME: Final = 2**61 - 31
"""A prime that is 1 modulo 4, so that -1 has a root: `i` is one of its residues."""

_INDEX_LETTERS = frozenset("nmkNMKijl")
_DIGITS = 40
_MAX_DIGITS = 400
_POINTS = 8
_MIN_POINTS = 3
_MAX_MODULAR = 64


class RefusedError(Exception):
    """The value would be too large to compute: a tower of powers, a huge factorial."""


class UndecidedError(Exception):
    """Too few points where both expressions have a value."""


class _NotRationalError(Exception):
    """No rational function."""


def is_decimal(node: Node) -> bool:
    """True where a number of `node` is written with decimals, so that it may be rounded."""
    return node[0] == "d" or any(isinstance(one, tuple) and is_decimal(one) for one in node[1:])


@lru_cache(maxsize=4096)
def symbols(node: Node) -> frozenset[str]:
    """Names of the symbols of `node`."""
    if node[0] == "s":
        return frozenset((node[1],))
    return frozenset().union(*(symbols(one) for one in node[1:] if isinstance(one, tuple)))


def same_value(gold: Node, other: Node, *, relative: float, absolute: float | None) -> bool:
    """Whether the two are equal; where a number is written with decimals, to the tolerances.

    `relative` bounds the difference by the larger of the two, and by itself where the gold is a
    whole number; `absolute`, where given, is allowed beside it.

    Raises:
        RefusedError: a value would be too large.
        UndecidedError: nothing could be evaluated.
    """
    if gold == other:
        return True
    rounded = absolute is not None or is_decimal(gold) or is_decimal(other)
    if not symbols(gold) and not symbols(other):
        return _same_constant(gold, other, rounded, relative, absolute)
    if not rounded:
        try:
            return _same_modulo_prime(gold, other)
        except _NotRationalError:
            return _same_at_points(gold, other, 1e-20)
    return _same_at_points(gold, other, relative)


def _same_constant(
    gold: Node, other: Node, rounded: bool, relative: float, absolute: float | None
) -> bool:
    one, two = exact(gold), exact(other)
    if one is not None and two is not None:
        if one == two or not rounded:
            return one == two
        allowed = Fraction(repr(relative))
        bound = allowed if one.denominator == 1 else allowed * max(abs(one), abs(two))
        return abs(one - two) <= max(bound, Fraction(repr(absolute or 0.0)))
    first, second = constant(gold), constant(other)
    if not rounded:
        # Digits before the point come on top of those that are compared, as far as there are any.
        scale = max(abs(first), abs(second))
        beyond = 1 / scale if scale > 1 and _log2(scale) < 3.3 * _MAX_DIGITS else 1
        return _close(first, second, 10.0 ** (1 - _DIGITS) * beyond)
    return _close(first, second, relative) or (
        absolute is not None and bool(abs(first - second) <= absolute)
    )


def _close(one: Any, two: Any, relative: float) -> bool:
    if one == two:
        return True
    scale = max(abs(one), abs(two))
    if not scale < math.inf:
        return False
    # Beside 0 only rounding is left of a value as small as this.
    return bool(abs(one - two) <= relative * scale) or (
        min(abs(one), abs(two)) == 0 and bool(scale < 10.0**-45)
    )


# Exact


@lru_cache(maxsize=8192)
def exact(node: Node) -> Fraction | None:
    """The rational value of a constant expression; None where it has none or is too long."""
    try:
        return _exact(node)
    except (ZeroDivisionError, _NotRationalError):
        return None


def _exact(node: Node) -> Fraction:
    kind = node[0]
    if kind in ("n", "d"):
        return Fraction(node[1])
    if kind == "+":
        return _bounded(sum((_exact(one) for one in node[1:]), Fraction(0)))
    if kind == "*":
        return _bounded(_exact(node[1]) * _exact(node[2]))
    if kind == "/":
        return _bounded(_exact(node[1]) / _exact(node[2]))
    if kind == "^":
        return _exact_power(_exact(node[1]), _exact(node[2]))
    if kind == "f" and len(node) > 2:
        return _exact_function(node[1], [_exact(one) for one in node[2:]])
    raise _NotRationalError


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > 2 * MAX_BITS:
        raise _NotRationalError
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator > 1:
        root = _exact_root(base, exponent.denominator)
        if root is None:
            raise _NotRationalError
        return _exact_power(root, Fraction(exponent.numerator))
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size > 1 and abs(exponent) * size > MAX_BITS:
        raise _NotRationalError
    if size <= 1:
        # Of 0, 1 and -1 only the parity counts.
        exponent = Fraction(min(abs(exponent.numerator), 2 + exponent.numerator % 2)) * (
            -1 if exponent < 0 else 1
        )
    return Fraction(base**exponent.numerator)


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    """The rational root of a number that has one; of negative ones none."""
    if base < 0 or degree > 64:
        return None
    parts = [_integer_root(part, degree) for part in (base.numerator, base.denominator)]
    return None if None in parts else Fraction(parts[0] or 0, parts[1] or 1)


def _integer_root(value: int, degree: int) -> int | None:
    if value < 2:
        return value
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    if value.bit_length() > 1000:
        return None
    guess = round(value ** (1 / degree))
    return next((one for one in (guess - 1, guess, guess + 1) if one**degree == value), None)


def _exact_function(name: str, arguments: Sequence[Fraction]) -> Fraction:
    first = arguments[0]
    if name == "abs":
        return abs(first)
    if name == "floor":
        return Fraction(math.floor(first))
    if name == "ceil":
        return Fraction(math.ceil(first))
    whole = all(one.denominator == 1 and 0 <= one <= 3000 for one in arguments)
    if name == "factorial" and whole:
        return Fraction(math.factorial(first.numerator))
    if name == "binomial" and whole:
        return Fraction(math.comb(first.numerator, arguments[1].numerator))
    raise _NotRationalError


# Modulo a prime


def _same_modulo_prime(gold: Node, other: Node) -> bool:
    agreed = 0
    for attempt in range(2 * _MIN_POINTS):
        point = {name: _residue(name, attempt) for name in symbols(gold) | symbols(other)}
        try:
            if _modular(gold, point) != _modular(other, point):
                return False
        except ZeroDivisionError:
            continue
        agreed += 1
        if agreed == 2:
            return True
    raise _NotRationalError


def _residue(name: str, attempt: int) -> int:
    return pow(7, zlib.crc32(f"{name}/{attempt}".encode()) + 1, PRIME)


_ROOT_OF_MINUS_ONE: Final = next(
    root for root in (pow(base, (PRIME - 1) // 4, PRIME) for base in range(2, 50))
    if root * root % PRIME == PRIME - 1
)  # fmt: skip


def _modular(node: Node, point: Mapping[str, int]) -> int:
    kind = node[0]
    if kind in ("n", "d"):
        value = node[1]
        return int(value.numerator) * _inverse(value.denominator) % PRIME
    if kind == "s":
        return point[node[1]]
    if kind == "+":
        return sum(_modular(one, point) for one in node[1:]) % PRIME
    if kind == "*":
        return _modular(node[1], point) * _modular(node[2], point) % PRIME
    if kind == "/":
        return _modular(node[1], point) * _inverse(_modular(node[2], point)) % PRIME
    if kind == "^":
        exponent = exact(node[2]) if not symbols(node[2]) else None
        if exponent is None or exponent.denominator > 1 or abs(exponent) > _MAX_MODULAR:
            raise _NotRationalError
        power = pow(_modular(node[1], point), abs(exponent.numerator), PRIME)
        return _inverse(power) if exponent < 0 else power
    if node == ("f", "i"):
        return _ROOT_OF_MINUS_ONE
    raise _NotRationalError


def _inverse(value: int) -> int:
    if value % PRIME == 0:
        raise ZeroDivisionError
    return 1 if value == 1 else pow(value, -1, PRIME)


# Many digits

_local = threading.local()


def _context(digits: int) -> Any:
    """A context of mpmath that no other thread uses."""
    contexts = _local.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        try:
            from mpmath.ctx_mp import MPContext
        except ImportError as error:
            raise SetupError(
                'grading this answer needs the package mpmath: pip install "agentrl[math]"'
            ) from error
        contexts[digits] = MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


@lru_cache(maxsize=4096)
def constant(node: Node) -> Any:
    """The value of a constant expression, to at least 40 significant digits of its largest part.

    Raises:
        RefusedError: too large.
        UndecidedError: it has no value.
    """
    try:
        _local.peak = 0
        value = _numeric(node, {}, _context(_DIGITS + 20))
        if _local.peak > 50:
            # Room for what a small difference of large numbers leaves.
            digits = min(int(math.log10(2) * _local.peak), _MAX_DIGITS) + _DIGITS + 20
            value = _numeric(node, {}, _context(50 * (digits // 50 + 1)))
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise UndecidedError(str(error)) from error
    return value


def _same_at_points(gold: Node, other: Node, relative: float) -> bool:
    names = sorted(symbols(gold) | symbols(other))
    whole = all(name[0] in _INDEX_LETTERS for name in names) or _wants_whole(gold, other)
    agreed = 0
    context = _context(30)
    for number in range(_POINTS):
        point = {name: _sample(name, number, whole, context) for name in names}
        values = [_value_at(one, tuple(point.items()), context) for one in (gold, other)]
        if None in values:
            continue
        one, two = values
        if not _close(one, two, relative):
            negative = any(value < 0 for value in point.values())
            real = all(abs(getattr(value, "imag", 0)) < 1e-15 for value in values)
            if negative and not real:
                # The domain of a root or a logarithm is positive.
                continue
            return False
        agreed += 1
    if agreed < _MIN_POINTS:
        raise UndecidedError("they have a value together at too few points")
    return True


def _value_at(node: Node, point: Sequence[tuple[str, Any]], context: Any) -> Any:
    try:
        value = _numeric(node, dict(point), context)
    except (ZeroDivisionError, ValueError, OverflowError, RefusedError):
        return None
    return value if abs(value) < math.inf else None


def _wants_whole(*nodes: Node) -> bool:
    return any(
        (node[0] == "f" and node[1] in ("floor", "ceil", "factorial", "binomial"))
        or any(_wants_whole(one) for one in node[1:] if isinstance(one, tuple))
        for node in nodes
    )  # fmt: skip


def _sample(name: str, number: int, whole: bool, context: Any) -> Any:
    drawn = zlib.crc32(f"{name}:{number}".encode())
    if whole:
        low, high = ((2, 9), (8, 40), (40, 400))[number // 3]
        return context.mpf(low + drawn % (high - low))
    value = context.mpf(1 + drawn % 9973) / context.mpf(2003)
    return -value if number >= 5 and drawn % 3 else value


def _numeric(node: Node, point: Mapping[str, Any], context: Any) -> Any:
    kind = node[0]
    if kind in ("n", "d"):
        value = node[1]
        return context.mpf(value.numerator) / value.denominator
    if kind == "s":
        return point[node[1]]
    if kind == "+":
        total = _numeric(node[1], point, context)
        for one in node[2:]:
            if not point:
                _local.peak = max(_local.peak, _log2(total))
            total = total + _numeric(one, point, context)
        return total
    if kind == "*":
        return _numeric(node[1], point, context) * _numeric(node[2], point, context)
    if kind == "/":
        return _numeric(node[1], point, context) / _numeric(node[2], point, context)
    if kind == "^":
        return _power(_numeric(node[1], point, context), _numeric(node[2], point, context), context)
    arguments = [_numeric(one, point, context) for one in node[2:]]
    if kind == "c":
        return _unknown(node[1], arguments, context)
    return _function(node[1], arguments, context)


def _log2(value: Any) -> float:
    size = abs(value)
    return float(size.exp + size.bc) if 0 < size < math.inf else 0.0


def _power(base: Any, exponent: Any, context: Any) -> Any:
    if abs(exponent) > MAX_LOG2 or abs(exponent) * max(1.0, abs(_log2(base))) > MAX_LOG2:
        if abs(base) == 1 and context.isint(exponent):
            return base ** (exponent % 2)
        raise RefusedError("a tower of powers")
    if base == 0 and exponent == 0:
        return context.mpf(1)
    real_root = not isinstance(base, context.mpc) and base < 0 and exponent != int(exponent.real)
    if real_root and not isinstance(exponent, context.mpc):
        # The odd root of a negative number is the real one, as at school.
        degree = 1 / exponent
        if abs(degree - round(degree)) < 1e-25 and round(degree) % 2:
            return -context.power(-base, exponent)
    return context.power(base, exponent)


def _unknown(name: str, arguments: Sequence[Any], context: Any) -> Any:
    """A stand-in for a function that nothing is known of, the same for the same name."""
    value = context.mpf(zlib.crc32(name.encode()) % 1009 + 1) / 97
    for place, one in enumerate(arguments, start=1):
        value = value + context.cos(one * (place + value)) + one / (7 + place)
    return value


def _function(name: str, arguments: Sequence[Any], context: Any) -> Any:
    if not arguments:
        constants = {"pi": context.pi, "e": context.e, "oo": context.inf, "i": context.mpc(0, 1)}
        return +constants[name]
    for one in arguments:
        if _log2(one) > MAX_LOG2 or (name in _GROWING and abs(one) > 1e5):
            raise RefusedError(f"{name} of a huge number")
    if name == "abs":
        return abs(arguments[0])
    if name in ("floor", "ceil"):
        return _rounded(name, arguments[0], context)
    if name == "deg":
        return arguments[0] * context.pi / 180
    if name == "logb":
        return context.log(arguments[1]) / context.log(arguments[0])
    return getattr(context, _NAMES.get(name, name))(*arguments)


def _rounded(name: str, value: Any, context: Any) -> Any:
    nearest = context.nint(value)
    if abs(value - nearest) < 1e-20 * (1 + abs(value)):
        return nearest
    return context.floor(value) if name == "floor" else context.ceil(value)


_GROWING = frozenset(("factorial", "binomial", "exp", "sinh", "cosh"))
_NAMES = {
    "log": "ln",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
}


def proportional(one: Node, two: Node) -> int | None:
    """The sign of the constant factor that makes the expressions equal; None where none does.

    0 stands for a factor that is not real. `0 = 0` is proportional to nothing.
    """
    names = sorted(symbols(one) | symbols(two))
    if not names:
        return None
    context = _context(30)
    whole = _wants_whole(one, two)
    ratios = []
    for number in range(_POINTS):
        point = tuple((name, _sample(name, number, whole, context)) for name in names)
        values = [_value_at(node, point, context) for node in (one, two)]
        if None in values:
            continue
        if values[1] == 0 or values[0] == 0:
            return None
        ratios.append(values[0] / values[1])
    if len(ratios) < _MIN_POINTS:
        raise UndecidedError("they have a value together at too few points")
    if not all(_close(ratios[0], ratio, 1e-18) for ratio in ratios[1:]):
        return None
    ratio = ratios[0]
    if abs(getattr(ratio, "imag", 0)) > 1e-18 * abs(ratio):
        return 0
    return 1 if ratio.real > 0 else -1

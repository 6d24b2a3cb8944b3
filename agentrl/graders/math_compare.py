"""Compares two values by type: numbers, lists, sets, intervals, relations, matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from agentrl.graders.math_number import (
    RefusedError,
    constant,
    proportional,
    same_value,
    symbols,
)
from agentrl.graders.math_tree import Items, Matrix, Node, Relation, Span, Union, Value

MAX_ITEMS = 64
_UNORDERED = ("{}", ",", "and")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_INEQUALITIES = frozenset(("<", ">", "<=", ">="))
_COORDINATES = frozenset("xyz")
_REALS = ("s", "mathbb{R}")


class _Piece(NamedTuple):
    """A stretch of the real line by the values of its ends."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


class _Labelled(NamedTuple):
    """An equation that gives a name to a value: `x = 5`, `f(x) = 2x`; no label for `2 + 3 = 5`."""

    label: Value | None
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Compares with these tolerances; `scale` multiplies every number of the answer."""

    relative: float
    absolute: float | None = None
    scale: Fraction = Fraction(1)

    def same(self, gold: Value, other: Value) -> bool:
        """Whether `other` is right where `gold` is.

        Raises:
            RefusedError: a value of either is too large.
            UndecidedError: a value of either could not be found.
        """
        gold, other = _member(gold), _member(other)
        if _is_region(gold) or _is_region(other):
            pieces, others = _pieces(gold), _pieces(other)
            if pieces is not None and others is not None:
                return self._same_pieces(pieces, others)
        if isinstance(gold, Relation) or isinstance(other, Relation):
            return self._same_relation(gold, other)
        if isinstance(gold, Items) or isinstance(other, Items):
            return self._same_items(gold, other)
        if isinstance(gold, Union) and isinstance(other, Union):
            return self._unordered(gold.parts, other.parts)
        if isinstance(gold, Span) and isinstance(other, Span):
            ends = self.same(gold.low, other.low) and self.same(gold.high, other.high)
            return ends and gold.closed == other.closed
        if isinstance(gold, Matrix) and isinstance(other, Matrix):
            shapes = [[len(row) for row in one.rows] for one in (gold, other)]
            return shapes[0] == shapes[1] and all(
                self._ordered(*rows) for rows in zip(gold.rows, other.rows, strict=True)
            )
        if isinstance(gold, tuple) and isinstance(other, tuple):
            structured = (Items, Span, Union, Relation, Matrix)
            if isinstance(gold, structured) or isinstance(other, structured):
                return False
            return self._same_number(gold, other)
        return False

    def _same_number(self, gold: Node, other: Node) -> bool:
        """Degrees count as such on both sides, or on one only, and as radians."""
        if str(gold[1]).startswith("base ") and other[0] == "n":
            return bool(gold[2] == other)
        degrees = [one for one in (gold, other) if one[:2] == ("f", "deg")]
        if len(degrees) == 2:
            return self._same_scalar(gold[2], other[2])
        if degrees:
            bare = [one[2] if one in degrees else one for one in (gold, other)]
            return self._same_scalar(*bare) or self._same_scalar(gold, other)
        return self._same_scalar(gold, other)

    def _same_scalar(self, gold: Node, other: Node) -> bool:
        if self.scale != 1:
            other = ("*", ("n", self.scale), other)
        return same_value(gold, other, relative=self.relative, absolute=self.absolute)

    # Lists and sets

    def _ordered(self, gold: Sequence[Value], other: Sequence[Value]) -> bool:
        return len(gold) == len(other) and all(
            self.same(*pair) for pair in zip(gold, other, strict=True)
        )

    def _unordered(self, gold: Sequence[Value], other: Sequence[Value]) -> bool:
        """As sets: an element given twice counts once."""
        if max(len(gold), len(other)) > MAX_ITEMS:
            raise RefusedError(f"more than {MAX_ITEMS} elements")
        return all(any(self.same(one, two) for two in other) for one in gold) and all(
            any(self.same(one, two) for one in gold) for two in other
        )

    def _same_items(self, gold: Value, other: Value) -> bool:
        if not isinstance(gold, Items) or not isinstance(other, Items):
            several, single = (gold, other) if isinstance(gold, Items) else (other, gold)
            assert isinstance(several, Items)
            alone = several.kind == "{}" and len(several.items) == 1
            return alone and self.same(
                *((several.items[0], single) if several is gold else (single, several.items[0]))
            )
        if gold.kind in _UNORDERED and other.kind in _UNORDERED:
            return self._same_labelled(gold, other)
        named = [_names(one) for one in (gold, other)]
        if gold.kind == "()" and named[1] is not None:
            return self._ordered(gold.items, [one.value for one in named[1]])
        if other.kind == "()" and named[0] is not None:
            return self._ordered([one.value for one in named[0]], other.items)
        return gold.kind == other.kind and self._ordered(gold.items, other.items)

    def _same_labelled(self, gold: Items, other: Items) -> bool:
        """`x = 1, y = 2` in any order, but `x` must keep its value."""
        names, others = _names(gold), _names(other)
        if names is not None and others is not None:
            labels = {one.label for one in names}
            if labels == {one.label for one in others}:
                return all(
                    self._unordered(
                        [one.value for one in names if one.label == label],
                        [one.value for one in others if one.label == label],
                    )
                    for label in labels
                )
        return self._unordered(gold.items, other.items)

    # Relations

    def _same_relation(self, gold: Value, other: Value) -> bool:
        one, two = _labelled(gold), _labelled(other)
        if not isinstance(gold, Relation):
            return two is not None and self.same(gold, two.value)
        if not isinstance(other, Relation):
            return one is not None and self.same(one.value, other)
        if one is not None and two is not None and not _at_odds(one.label, two.label):
            renamed = _renamed(one.label, two)
            if self.same(one.value, renamed):
                return True
        if len(gold.operators) != len(other.operators):
            return False
        if len(gold.operators) > 1:
            straight = gold.operators == other.operators
            sides = other.sides if straight else other.sides[::-1]
            operators = tuple(_FLIPPED.get(one, "") for one in gold.operators[::-1])
            fits = straight or operators == other.operators
            return fits and self._ordered(gold.sides, sides)
        return self._same_condition(gold, other)

    def _same_condition(self, gold: Relation, other: Relation) -> bool:
        """Two equations, or two inequalities, that a factor makes equal."""
        sides = (*gold.sides, *other.sides)
        if any(isinstance(one, (Items, Span, Union, Relation, Matrix)) for one in sides):
            straight = gold.operators == other.operators
            return straight and self._ordered(gold.sides, other.sides)
        minus = ("n", Fraction(-1))
        left, right = (("+", one.sides[0], ("*", minus, one.sides[1])) for one in (gold, other))
        factor = proportional(left, right)
        if factor is None:
            return False
        operator = other.operators[0] if factor > 0 else _FLIPPED.get(other.operators[0], "")
        free = gold.operators[0] in ("=", "!=")
        return gold.operators[0] == (other.operators[0] if free else operator)

    # Parts of the real line

    def _same_pieces(self, gold: Sequence[_Piece], other: Sequence[_Piece]) -> bool:
        one, two = _merged(gold), _merged(other)
        return len(one) == len(two) and all(
            self._same_end(a.low, b.low)
            and self._same_end(a.high, b.high)
            and (a.low_closed == b.low_closed or abs(a.low) == math.inf)
            and (a.high_closed == b.high_closed or abs(a.high) == math.inf)
            for a, b in zip(one, two, strict=True)
        )

    def _same_end(self, one: Any, two: Any) -> bool:
        if one == two:
            return True
        size = max(abs(one), abs(two))
        return bool(size < math.inf and abs(one - two) <= self.relative * size)


def _member(value: Value) -> Value:
    r"""What `x \in A` says about `x`: `A`."""
    if isinstance(value, Relation) and value.operators[-1] == "in":
        return value.sides[-1]
    return value


def _is_region(value: Value) -> bool:
    if isinstance(value, Items) and value.kind in (",", "and"):
        return any(_is_region(one) for one in value.items if isinstance(one, Relation))
    if isinstance(value, Relation):
        return all(one in _INEQUALITIES for one in value.operators)
    return isinstance(value, (Span, Union)) or value == _REALS


def _pieces(value: Value) -> list[_Piece] | None:
    """The stretches of the real line that `value` is, None where it is none or not constant."""
    if isinstance(value, Relation):
        return _condition_pieces(value)
    if isinstance(value, Union):
        found = [_pieces(part) for part in value.parts]
        return None if None in found else [piece for part in found for piece in part or ()]
    if isinstance(value, Span):
        return _stretch(value.low, value.high, *value.closed)
    if value == _REALS:
        return [_Piece(-math.inf, False, math.inf, False)]
    if not isinstance(value, Items):
        return None
    if value.kind in (",", "and"):
        found = [_pieces(_member(one)) for one in value.items]
        if None in found or not found:
            return None
        if value.kind == ",":
            return [piece for part in found for piece in part or ()]
        return _intersected([part or [] for part in found])
    if value.kind == "{}":
        points = [_stretch(one, one, True, True) for one in value.items]
        return None if None in points else [piece for part in points for piece in part or ()]
    if len(value.items) != 2:
        return None
    return _stretch(*value.items, value.kind[0] == "[", value.kind[-1] == "]")


def _stretch(low: Value, high: Value, low_closed: bool, high_closed: bool) -> list[_Piece] | None:
    ends = []
    for one in (low, high):
        if isinstance(one, (Items, Span, Union, Relation, Matrix)) or symbols(one):
            return None
        value = constant(one)
        if getattr(value, "imag", 0) != 0:
            return None
        ends.append(value)
    return [_Piece(ends[0], low_closed, ends[1], high_closed)]


def _condition_pieces(value: Relation) -> list[_Piece] | None:
    """`x > 5`, `5 < x`, `1 < x <= 3` as stretches."""
    sides, operators = value.sides, value.operators
    if len(sides) == 3:
        low, variable, high = sides
        if not _is_symbol(variable) or {operators[0][0], operators[1][0]} not in ({"<"}, {">"}):
            return None
        ends = (operators[0].endswith("="), operators[1].endswith("="))
        if operators[0][0] == ">":
            return _stretch(high, low, ends[1], ends[0])
        return _stretch(low, high, *ends)
    if len(sides) != 2 or operators[0] not in _FLIPPED:
        return None
    variable, bound, operator = sides[0], sides[1], operators[0]
    if not _is_symbol(variable):
        variable, bound, operator = bound, variable, _FLIPPED[operator]
    if not _is_symbol(variable):
        return None
    if operator == "=":
        return _stretch(bound, bound, True, True)
    closed, endless = operator.endswith("="), ("f", "oo")
    below = ("*", ("n", Fraction(-1)), endless)
    if operator == "!=":
        parts = [_stretch(below, bound, False, False), _stretch(bound, endless, False, False)]
        return None if None in parts else [piece for part in parts for piece in part or ()]
    if operator[0] == "<":
        return _stretch(below, bound, False, closed)
    return _stretch(bound, endless, closed, False)


def _is_symbol(value: Value) -> bool:
    return isinstance(value, tuple) and value[:1] == ("s",)


def _merged(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Sorted, and those that touch or overlap joined; empty ones left out."""
    found: list[_Piece] = []
    kept = [
        one
        for one in pieces
        if one.low < one.high or (one.low == one.high and one.low_closed and one.high_closed)
    ]
    for one in sorted(kept, key=lambda piece: (piece.low, not piece.low_closed)):
        last = found[-1] if found else None
        touches = last is not None and (
            one.low < last.high or (one.low == last.high and (one.low_closed or last.high_closed))
        )
        if last is None or not touches:
            found.append(one)
            continue
        farther = (one.high, one.high_closed) > (last.high, last.high_closed)
        end = one if farther else last
        found[-1] = _Piece(last.low, last.low_closed, end.high, end.high_closed)
    return found


def _intersected(parts: Sequence[Sequence[_Piece]]) -> list[_Piece]:
    found = list(parts[0])
    for part in parts[1:]:
        found = [
            _Piece(low, low_closed, high, high_closed)
            for one in found
            for two in part
            for low, low_open in [max((one.low, not one.low_closed), (two.low, not two.low_closed))]
            for high, high_closed in [min((one.high, one.high_closed), (two.high, two.high_closed))]
            for low_closed in [not low_open]
        ]
    return found


def _labelled(value: Value) -> _Labelled | None:
    if not isinstance(value, Relation) or set(value.operators) != {"="}:
        return None
    first, last = value.sides[0], value.sides[-1]
    if _is_label(first):
        return _Labelled(first, last)
    if _is_label(last) and not _is_label(first):
        return _Labelled(last, first)
    if all(_is_constant(side) for side in value.sides):
        return _Labelled(None, last)
    return None


def _is_constant(value: Value) -> bool:
    plain = not isinstance(value, (Items, Span, Union, Relation, Matrix))
    return plain and not symbols(value)


def _is_label(value: Value) -> bool:
    """A name: a symbol, `f(x)`, a segment `AB`, an angle, `|AB|`, a tuple of names."""
    if isinstance(value, Items):
        return bool(value.items) and all(_is_label(one) for one in value.items)
    if isinstance(value, (Span, Union, Relation, Matrix)):
        return False
    if value[0] == "s" or (value[0] == "c" and not str(value[1]).startswith("base ")):
        return True
    parts: tuple[Value, ...] = value[1:] if value[0] == "*" else ()
    if value[:2] == ("f", "abs"):
        parts = value[2:]
    return bool(parts) and all(_is_label(one) for one in parts)


def _names(value: Value) -> list[_Labelled] | None:
    """Labels and values of a list of equations with at least two names."""
    if not isinstance(value, Items) or value.kind not in (",", "and", "{}"):
        return None
    found = [_labelled(one) for one in value.items]
    named = [one for one in found if one is not None and one.label is not None]
    different = len({one.label for one in named}) > 1
    return named if len(named) == len(found) and different else None


def _at_odds(one: Value | None, two: Value | None) -> bool:
    """Coordinates of different names are different statements; other names are free."""
    if not _is_symbol(one or ()) or not _is_symbol(two or ()):
        return False
    assert one is not None and two is not None
    return one != two and one[1] in _COORDINATES and two[1] in _COORDINATES


def _renamed(label: Value | None, other: _Labelled) -> Value:
    """The value of `other` with the variable of its function named as that of `label`."""
    one, two = label, other.label
    for name in (one, two):
        if not isinstance(name, tuple) or name[0] != "c" or len(name) != 3 or name[2][0] != "s":
            return other.value
    assert one is not None and two is not None
    old, new = two[2], one[2]
    if old == new or isinstance(other.value, (Items, Span, Union, Relation, Matrix)):
        return other.value

    def replaced(node: Any) -> Any:
        if node == old:
            return new
        return tuple(map(replaced, node)) if isinstance(node, tuple) else node

    return tuple(replaced(other.value))

r"""Reads a plain mathematical text (LaTeX or as typed) into expressions, lists, sets and relations.

An expression is a tuple whose first entry names it: `("n", value)` a number, `("d", value)` one
written with decimals, `("s", name)` a symbol, `("+", *terms)`, `("*", *factors)`,
`("^", base, exponent)`, `("/", over, under)`, `("f", name, *arguments)` a known function and
`("c", name, *arguments)` one of the answer's own. What people mean counts: `2\frac12` is 2.5.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeAlias

from agentrl.graders.math_tokens import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    NO_ATOM,
    RELATIONS,
    Token,
    UnreadableError,
    tokenize,
)

Node: TypeAlias = tuple[Any, ...]
"""An expression; see the module."""


class Items(NamedTuple):
    """Several values: `kind` is `()`, `[]`, `{}` or, where nothing encloses them, `,` or `and`."""

    kind: str
    items: tuple[Value, ...]


class Span(NamedTuple):
    """An interval; `closed` tells of its left and its right end."""

    low: Node
    high: Node
    closed: tuple[bool, bool]


class Union(NamedTuple):
    """Several sets together."""

    parts: tuple[Value, ...]


class Relation(NamedTuple):
    """Sides with the operators between them: `1 < x < 2` has three and two."""

    sides: tuple[Value, ...]
    operators: tuple[str, ...]


class Matrix(NamedTuple):
    """Rows of entries."""

    rows: tuple[tuple[Value, ...], ...]


Value: TypeAlias = "Node | Items | Span | Union | Relation | Matrix"

MAX_DEPTH: Final = 60
MAX_TOKENS: Final = 600
MAX_SIGNS: Final = 4

_PRODUCT = ("*", "\\cdot", "\\times", "\\ast")
_SEPARATORS = (",", ";", "and", "or")
_CALLED = frozenset("fghpFGP")


def parse(text: str, *, thousands: bool = True, signs: int = 0) -> Value:
    r"""The value that a plain text spells.

    `signs` decides every `\pm` and `\mp` of it, one bit each from the left (see `sign_count`).

    Raises:
        UnreadableError: anything unknown or left over.
    """
    tokens = tokenize(text, thousands=thousands)
    if len(tokens) > MAX_TOKENS:
        raise UnreadableError(f"{len(tokens)} signs are too many")
    reader = _Reader(tokens, signs)
    value = reader.top()
    reader.expect("")
    return value


def sign_count(text: str) -> int:
    r"""How many choices of signs the `\pm` of a text leave; 1 without any.

    Where there is a `\mp` all go together; otherwise each is free.
    """
    free = len(re.findall(r"\\pm(?![a-zA-Z])|\+/?-(?=\s*[\d\\(a-zA-Z])", text))
    linked = len(re.findall(r"\\mp(?![a-zA-Z])", text))
    if linked:
        return 2
    if free > MAX_SIGNS:
        raise UnreadableError(f"{free} times plus or minus")
    return int(2**free)


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[Token], signs: int) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.signs = signs
        self.seen_signs = 0
        self.outward = False
        self.linked = any(token.text == "\\mp" for token in tokens)

    @property
    def now(self) -> str:
        return self.tokens[self.at].text

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.tokens[self.at].kind != "end" and self.now in texts:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if self.now != text:
            raise UnreadableError(f"{self.now!r} where {text or 'the end'!r} should stand")
        if text:
            self.at += 1

    # Structure

    def top(self) -> Value:
        items, marks = [self.item()], set[str]()
        while self.now in _SEPARATORS and self.tokens[self.at].kind != "end":
            while self.now in _SEPARATORS:
                marks.add(self.take().text)
            items.append(self.item())
        if not marks:
            return items[0]
        return Items("and" if marks == {"and"} else ",", tuple(items))

    def item(self) -> Value:
        sides, operators = [self.union()], list[str]()
        while self.now in RELATIONS and self.tokens[self.at].kind != "end":
            operators.append(RELATIONS[self.take().text])
            sides.append(self.union())
        return sides[0] if not operators else Relation(tuple(sides), tuple(operators))

    def union(self) -> Value:
        parts = [self.value()]
        while self.accept("\\cup"):
            parts.append(self.value())
        return parts[0] if len(parts) == 1 else Union(tuple(parts))

    def value(self) -> Value:
        if self.now == "]":
            return self.enclosed()
        return self.sum()

    def sum(self) -> Value:
        first = self.signed()
        terms = [first]
        while self.now in ("+", "-", "\\pm", "\\mp"):
            sign = self.sign()
            term = scalar(self.product())
            terms.append(term if sign > 0 else ("*", ("n", Fraction(-1)), term))
        if len(terms) == 1:
            return first
        return ("+", *(scalar(one) for one in terms))

    def sign(self) -> int:
        mark = self.take().text
        if mark == "+" and self.now == "-" and self.tokens[self.at + 1].kind != "end":
            # `+-` is plus or minus as typed; `+/-` likewise.
            self.take()
            mark = "\\pm"
        if mark in ("+", "-"):
            return 1 if mark == "+" else -1
        place = 0 if self.linked else self.seen_signs
        self.seen_signs += 1
        up = bool(self.signs >> place & 1)
        return 1 if up == (mark == "\\mp") else -1

    def signed(self) -> Value:
        sign, any_sign = 1, False
        while self.now in ("+", "-", "\\pm", "\\mp"):
            sign *= self.sign()
            any_sign = True
        value = self.product()
        if not any_sign:
            return value
        return _negated(scalar(value), "+" if sign > 0 else "-")

    def product(self) -> Value:
        result = self.power()
        while True:
            if self.accept(*_PRODUCT):
                result = ("*", scalar(result), scalar(self.factor()))
            elif self.now in ("/", "\\div") and self.tokens[self.at].kind != "end":
                self.take()
                result = ("/", scalar(result), scalar(self.factor()))
            elif self.starts_atom():
                left, beside = scalar(result), self.tokens[self.at].kind == "number"
                factor = scalar(self.power())
                if beside and left[0] in ("n", "d"):
                    # Two numbers side by side are a mixed one, `1 1/2`, or nothing.
                    if not self.accept("/"):
                        raise UnreadableError("two numbers side by side")
                    factor = ("/", factor, scalar(self.power()))
                    if _mixed(left, factor) is None:
                        raise UnreadableError("two numbers side by side")
                result = _mixed(left, factor) or ("*", left, factor)
            else:
                return result

    def factor(self) -> Value:
        return self.signed() if self.now in ("+", "-") else self.power()

    def starts_atom(self) -> bool:
        token = self.tokens[self.at]
        if token.kind in ("number", "letter"):
            return True
        if token.kind == "macro":
            return token.text not in RELATIONS and token.text not in NO_ATOM
        if token.text == "[" and self.outward:
            return False
        return token.text in ("(", "[", "{") or (token.text == "|" and not self.bars)

    def power(self) -> Value:
        base = self.postfix(self.atom())
        if self.accept("^"):
            exponent = scalar(self.exponent())
            return self.postfix(("^", scalar(base), exponent))
        return base

    def exponent(self) -> Value:
        if self.now in ("-", "+"):
            sign = self.take().text
            return _negated(scalar(self.exponent()), sign)
        base = self.atom()
        return ("^", scalar(base), scalar(self.exponent())) if self.accept("^") else base

    def postfix(self, value: Value) -> Value:
        while True:
            if self.accept("!"):
                if self.now == "!":
                    raise UnreadableError("!!")
                value = ("f", "factorial", scalar(value))
            elif self.accept("°"):
                value = ("f", "deg", scalar(value))
            elif self.accept("%"):
                value = ("/", scalar(value), ("n", Fraction(100)))
            else:
                return value

    # Atoms

    def atom(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        try:
            return self._atom()
        finally:
            self.depth -= 1

    def _atom(self) -> Value:
        token = self.tokens[self.at]
        if token.kind == "number":
            self.at += 1
            return self.based(token)
        if token.kind == "letter":
            self.at += 1
            return self.symbol(token.text)
        if token.text in ("(", "[", "\\{", "{"):
            return self.enclosed()
        if token.text == "|":
            return self.absolute()
        if token.kind == "macro":
            self.at += 1
            return self.macro(token.text[1:])
        raise UnreadableError(f"{token.text!r}")

    def based(self, token: Token) -> Node:
        """A number, or digits to a base: `101_2`."""
        value = token.value
        assert value is not None
        if self.now == "_":
            self.take()
            base = scalar(self.atom())
            if base[0] != "n" or value.denominator != 1:
                raise UnreadableError("a number with an index")
            return ("c", f"base {base[1]}", ("n", value))
        return ("d" if "." in token.text or "e" in token.text.lower() else "n", value)

    def symbol(self, name: str) -> Node:
        marks = self.index()
        while self.accept("'", "\\prime"):
            marks += "'"
        if name == "e" and not marks:
            return ("f", "e")
        if name == "i" and not marks:
            return ("f", "i")
        if name in _CALLED and self.now == "(":
            inside = self.enclosed()
            return ("c", name + marks, *_arguments(inside))
        if name in "CP" and not marks and self.now == "(":
            inside = self.enclosed()
            arguments = _arguments(inside)
            if len(arguments) == 2 and name == "C":
                return ("f", "binomial", *arguments)
            return ("*", ("s", name), scalar(inside))
        return ("s", name + marks)

    def index(self) -> str:
        if not self.accept("_"):
            return ""
        if not self.accept("{"):
            return "_" + self.take().text.strip("\\")
        parts, depth = list[str](), 1
        while depth:
            token = self.take()
            if token.kind == "end":
                raise UnreadableError("an index that is not closed")
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            parts.append(token.text)
        return "_" + "".join(parts[:-1]).replace("\\", "")

    def enclosed(self) -> Value:
        opener = self.take().text
        bars, outward = self.bars, self.outward
        self.bars, self.outward = 0, opener == "]"
        empty = opener == "\\{" and self.now == "\\}"
        inside: Value = Items(",", ()) if empty else self.top()
        self.bars, self.outward = bars, outward
        closer = self.now
        if opener == "{":
            if self.accept("\\choose"):
                lower = scalar(self.top())
                self.expect("}")
                return ("f", "binomial", scalar(inside), lower)
            self.expect("}")
            return inside
        if opener == "\\{":
            self.expect("\\}")
            return Items("{}", _items(inside))
        if closer not in (")", "]") and not (opener == "]" and closer == "["):
            raise UnreadableError(f"{opener} is not closed")
        self.at += 1
        items = _items(inside)
        if opener == "]" or (opener, closer) in (("(", "]"), ("[", ")")):
            if len(items) != 2:
                raise UnreadableError(f"an interval of {len(items)} ends")
            ends = (scalar(items[0]), scalar(items[1]))
            return Span(*ends, (opener == "[", closer == "]"))
        if opener == "(" and len(items) == 1 and closer == ")":
            return inside
        return Items(opener + closer, items)

    def absolute(self) -> Node:
        self.take()
        self.bars += 1
        inside = scalar(self.sum())
        self.bars -= 1
        self.expect("|")
        return ("f", "abs", inside)

    def macro(self, name: str) -> Value:
        if name == "frac":
            over, under = self.piece(), self.piece()
            return ("/", over, under)
        if name == "binom":
            if self.now == "(":
                return ("f", "binomial", *_arguments(self.enclosed()))
            return ("f", "binomial", self.piece(), self.piece())
        if name == "sqrt":
            return self.root()
        if name in ("lfloor", "lceil"):
            inside = scalar(self.sum())
            self.expect("\\r" + name[1:])
            return ("f", name[1:], inside)
        if name in ("abs", "floor", "ceil"):
            return ("f", name, scalar(self.enclosed()))
        if name in FUNCTIONS:
            return self.function(name)
        if name in CONSTANTS:
            return Items("{}", ()) if name == "emptyset" else ("f", CONSTANTS[name])
        if name in GREEK:
            return ("s", name + self.index())
        if name in ("mathbb", "mathcal", "vec", "hat", "bar", "overline", "widehat"):
            start = self.at
            self.piece()
            return ("s", name + "".join(token.text for token in self.tokens[start : self.at]))
        if name == "beginmatrix":
            return self.matrix()
        raise UnreadableError(f"\\{name}")

    def piece(self) -> Node:
        r"""An argument of a macro: a group, or the next sign alone (`\frac12`)."""
        token = self.tokens[self.at]
        if token.kind == "number" and token.text.isdigit() and len(token.text) > 1:
            head, tail = token.text[0], token.text[1:]
            self.tokens[self.at] = Token("number", tail, Fraction(tail))
            return ("n", Fraction(head))
        return scalar(self.atom())

    def root(self) -> Node:
        degree: Node = ("n", Fraction(2))
        if self.now == "[":
            self.take()
            degree = scalar(self.sum())
            self.expect("]")
        inside = scalar(self.atom())
        return ("^", inside, ("/", ("n", Fraction(1)), degree))

    def function(self, name: str) -> Node:
        base, exponent = None, None
        for _ in range(2):
            if self.accept("_"):
                base = scalar(self.atom())
            elif self.accept("^"):
                exponent = scalar(self.exponent())
        argument = self.argument()
        if exponent == ("n", Fraction(-1)) and name in ("sin", "cos", "tan"):
            return ("f", "arc" + name, argument)
        if name == "lg":
            name, base = "log", ("n", Fraction(10))
        called: Node = ("f", name, argument) if base is None else ("f", "logb", base, argument)
        return called if exponent is None else ("^", called, exponent)

    def argument(self) -> Node:
        r"""What a function without parentheses takes: `\sin 2x`, up to a sign or a function."""
        if self.now in ("(", "{", "["):
            return scalar(self.postfix(self.enclosed()))
        result = scalar(self.signed_power())
        while self.starts_atom() and self.now not in ("(", "[", "\\{"):
            if self.tokens[self.at].kind == "macro" and self.now[1:] in FUNCTIONS:
                break
            result = ("*", result, scalar(self.power()))
        return result

    def signed_power(self) -> Value:
        if self.accept("-"):
            return ("*", ("n", Fraction(-1)), scalar(self.power()))
        return self.power()

    def matrix(self) -> Value:
        rows: list[tuple[Value, ...]] = []
        while not self.accept("\\endmatrix"):
            row = [self.item()]
            while self.accept("&"):
                row.append(self.item())
            rows.append(tuple(row))
            if not self.accept("\\\\") and self.now != "\\endmatrix":
                raise UnreadableError("a matrix that is not closed")
        return Matrix(tuple(rows))


def _negated(value: Node, sign: str) -> Node:
    if sign == "+":
        return value
    if value[0] in ("n", "d"):
        return (value[0], -value[1])
    return ("*", ("n", Fraction(-1)), value)


def scalar(value: Value) -> Node:
    """`value`, which must be an expression."""
    if isinstance(value, (Items, Span, Union, Relation, Matrix)):
        raise UnreadableError(f"{type(value).__name__} where a number should stand")
    return value


def _items(value: Value) -> tuple[Value, ...]:
    return value.items if isinstance(value, Items) and value.kind in (",", "and") else (value,)


def _arguments(value: Value) -> tuple[Node, ...]:
    return tuple(scalar(one) for one in (value.items if isinstance(value, Items) else (value,)))


def _mixed(left: Node, right: Node) -> Node | None:
    """A whole number before a proper fraction of whole numbers is their sum."""
    if left[0] != "n" or right[0] != "/" or left[1] <= 0 or left[1].denominator != 1:
        return None
    over, under = right[1], right[2]
    if over[0] == under[0] == "n" and 0 < over[1] < under[1]:
        return ("+", left, right)
    return None

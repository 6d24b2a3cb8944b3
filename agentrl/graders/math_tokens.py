"""Cuts a plain mathematical text into tokens, with numbers in the ways people write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final, NamedTuple


class UnreadableError(Exception):
    """The text is no mathematics that this parser knows."""


def names(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


class Token(NamedTuple):
    """A piece of the text: `kind` is number, letter, macro, other or end."""

    kind: str
    text: str
    value: Fraction | None = None


_THOUSANDS = r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?![\d ]*\d)"
_TAIL = r"\\(?:overline|bar|dot|overrightarrow)\s*\{?\s*(\d+)\s*\}?|\((\d+)\)(?![\w^(])"


def _token_pattern(number: str) -> re.Pattern[str]:
    return re.compile(
        rf"\s*(?:(?P<repeat>(?:\d*\.\d*)(?:{_TAIL}))"
        rf"|(?P<number>(?:{number})(?:\.\d+)?|\d+\.?\d*|\.\d+)(?P<exponent>[eE][-+]?\d+(?![\d.]))?"
        r"|(?P<macro>\\(?:[a-zA-Z]+|[{}|\\]))"
        r"|(?P<word>[a-zA-Z]+)|(?P<end>$)|(?P<other>.))",
        re.DOTALL,
    )


_WITH_THOUSANDS = _token_pattern(_THOUSANDS)
_WITHOUT = _token_pattern(r"\d+(?=\.\d)")
_ENCLOSED = re.compile(r"[(\[]|\\\{")
_ROWS = r"p?matrix|[bB]matrix|smallmatrix|array"
_BEGIN = re.compile(rf"\\begin\s*\{{(?:{_ROWS})\}}(?:\s*\{{[clr|\s]*\}})?")
_END = re.compile(rf"\\end\s*\{{(?:{_ROWS})\}}")
_DOTS = re.compile(r"(\d*\.\d*?)(\d+?)\2{2,}(?:\.{3}|\\(?:ldots|dots|cdots))")

FUNCTIONS: Final = names(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp"
)
CONSTANTS: Final = {"pi": "pi", "infty": "oo", "infinity": "oo", "inf": "oo", "emptyset": "{}"}
GREEK: Final = names(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi "
    "Omega ell angle triangle hbar star prime"
)
NO_ATOM: Final = names(
    r"\cup \cap \} \pm \mp \rfloor \rceil \\ \endmatrix \div \choose * \cdot \times \ast"
)
RELATIONS: Final = {
    "=": "=", "<": "<", ">": ">", "\\lt": "<", "\\gt": ">", "\\le": "<=", "\\ge": ">=",
    "\\ne": "!=", "\\in": "in", "\\approx": "=", "\\equiv": "=", "\\colon": "in", "\\to": "->",
}  # fmt: skip
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_WORD_FUNCTIONS = frozenset({*FUNCTIONS, *_ALIASES, "sqrt", "abs", "floor", "ceil", "binom"})


def tokenize(text: str, *, thousands: bool) -> list[Token]:
    """The tokens of `text`, the last one of kind `end`.

    `thousands` reads `1,000` as one number, where nothing encloses it: `(312,123)` has two entries.
    """
    thousands = thousands and not _ENCLOSED.search(text)
    pattern = _WITH_THOUSANDS if thousands else _WITHOUT
    if "..." in text or "dots" in text:
        text = _DOTS.sub(r"\1\\overline{\2}", text)
    if "\\begin" in text:
        text = _BEGIN.sub(r"\\beginmatrix ", text)
        text = _END.sub(r"\\endmatrix ", text)
    found: list[Token] = []
    for match in pattern.finditer(text):
        kind = match.lastgroup
        if kind == "end" or (match.end() == len(text) and not match[0].strip()):
            break
        said = match[0].strip()
        if match["repeat"]:
            found.append(Token("number", said, _repeating(said)))
        elif match["number"]:
            found.append(Token("number", said, _number(said)))
        elif match["word"]:
            found += _words(said)
        else:
            found.append(Token("macro" if match["macro"] else "other", said))
    found.append(Token("end", ""))
    return found


def _number(said: str) -> Fraction:
    plain = said.replace(",", "").replace(" ", "")
    mantissa, _, exponent = plain.lower().partition("e")
    if exponent and abs(int(exponent)) > 10_000:
        raise UnreadableError(f"an exponent of {exponent}")
    return Fraction(plain.rstrip(".") if not exponent else f"{mantissa.rstrip('.')}e{exponent}")


def _repeating(said: str) -> Fraction:
    match = re.fullmatch(rf"(\d*)\.(\d*)(?:{_TAIL})", said)
    if match is None:
        raise UnreadableError(said)
    whole, fixed, tail = match[1], match[2], match[3] or match[4]
    shift = int("1" + "0" * len(fixed))
    nines = Fraction(int(tail), int("9" * len(tail)) * shift)
    return Fraction(int(whole + fixed or "0"), shift) + nines


def _words(said: str) -> list[Token]:
    """A run of letters: a name that is known, or one symbol for each letter."""
    lower = said.lower()
    if lower in ("and", "or"):
        return [Token("other", lower)]
    if lower in ("degree", "degrees"):
        return [Token("other", "°")]
    if lower in ("pi", "infinity", "inf", "oo"):
        return [Token("macro", "\\pi" if lower == "pi" else "\\infty")]
    if lower in _WORD_FUNCTIONS:
        return [Token("macro", "\\" + _ALIASES.get(lower, lower))]
    if len(said) > 4 or (len(said) == 4 and said.islower()):
        raise UnreadableError(f"the word {said!r}")
    return [Token("letter", one) for one in said]

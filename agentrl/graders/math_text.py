"""Brings the text of a mathematical answer into one plain form: no layout, units taken off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from agentrl.graders.math_tokens import names

MAX_CHARS = 2000
"""An answer longer than this is refused."""

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ",
        "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "°": r"^\circ ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "⌊": r"\lfloor ",
        "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "²": "^2", "³": "^3", "⁴": "^4",
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "ℝ": r"\mathbb{R}",
        "∅": r"\emptyset ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "’": "'", "，": ",",
    }
)  # fmt: skip
_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:boxed|fbox)\b", ""),
        (r"\\\$", "＄"),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"(?<=\d)(?:\\[,;!:]|\{,\}|\{\\,\})(?=\d{3}(?!\d))", ","),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|mathstrut)(?![a-zA-Z])", ""),
        (r"(?<!\\)\\[,;:!> ]|~|\\q?quad\b|\\(?:hspace|phantom)\{[^{}]*\}", " "),
        (r"\\[dtc]frac\b", r"\\frac"),
        (r"\\[dt]binom\b", r"\\binom"),
        (r"\\%", "%"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])", " degrees "),
        (r"\\(?:geqslant|geq)(?![a-zA-Z])", r"\\ge "),
        (r"\\(?:leqslant|leq)(?![a-zA-Z])", r"\\le "),
        (r"\\(?:neq)(?![a-zA-Z])|!=", r"\\ne "),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"\*\*", "^"),
        (r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"),
        (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
        (r"\\(?:lvert|rvert|vert|mid)(?![a-zA-Z])", "|"),
    )
)
_BOLD = re.compile(r"\\(?:mathbf|bf|boldsymbol|bm)\s*\{([^{}]*)\}")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|rm|mbox|operatorname|mathit|mathsf)\s*\{([^{}]*)\}"
)
_SPACED_DIGITS = re.compile(r"(?<=\d) (?=\d)")


class Unit(NamedTuple):
    """What stands behind a number: a factor to the base unit, and the dimension.

    A word that is no known unit ("apples") is a dimension of its own.
    """

    factor: Fraction
    dimension: tuple[tuple[str, int], ...]

    @property
    def is_percent(self) -> bool:
        """True for per cent."""
        return self.dimension == (("percent", 1),)


class Measured(NamedTuple):
    """The text of a value without its unit, and the unit if there is one."""

    text: str
    unit: Unit | None


def _units() -> Mapping[str, tuple[str, Fraction]]:
    scales = {
        "length": "mm=1/1000 cm=1/100 dm=1/10 m=1 km=1000 millimeter=1/1000 centimeter=1/100 "
        "meter=1 kilometer=1000 millimetre=1/1000 centimetre=1/100 metre=1 kilometre=1000 "
        "in=127/5000 inch=127/5000 inches=127/5000 ft=381/1250 foot=381/1250 feet=381/1250 "
        "yd=1143/1250 yard=1143/1250 mile=201168/125 mi=201168/125",
        "mass": "mg=1/1000000 g=1/1000 kg=1 milligram=1/1000000 gram=1/1000 kilogram=1 "
        "lb=45359237/100000000 pound=45359237/100000000 oz=45359237/1600000000 "
        "ounce=45359237/1600000000 tonne=1000",
        "time": "ms=1/1000 s=1 sec=1 second=1 min=60 minute=60 h=3600 hr=3600 hour=3600 "
        "day=86400 week=604800",
        "volume": "ml=1/1000 mL=1/1000 L=1 liter=1 litre=1 milliliter=1/1000 millilitre=1/1000",
        "dollar": "dollar=1 USD=1 cent=1/100",
        "euro": "euro=1 EUR=1",
        "pound sterling": "GBP=1",
        "percent": "percent=1",
        "year": "year=1 month=1/12 yr=1",
        "hertz": "Hz=1 kHz=1000",
        "energy": "kJ=1000 kWh=3600000 joule=1",
    }
    found: dict[str, tuple[str, Fraction]] = {}
    for dimension, listed in scales.items():
        for one in listed.split():
            name, _, factor = one.partition("=")
            found[name] = (dimension, Fraction(factor))
    return found


_UNITS = _units()
_NOT_UNITS = names(
    "degree degrees and or sqrt sin cos tan cot sec csc log ln lg exp mod pi inf infinity max "
    "gcd lcm if for where with not union is are the all any choose otherwise"
)
_LETTER = r"A-Za-zµ"
_UNIT_END = re.compile(
    rf"^(?P<value>.*[0-9)}}\]!])(?P<space>\s*)(?P<unit>[{_LETTER}][{_LETTER}. ]*?"
    rf"(?:\s*\^\s*\{{?\s*-?[1-9]\s*\}}?)?"
    rf"(?:\s*(?:/|\bper\b)\s*[{_LETTER}][{_LETTER} ]*?(?:\s*\^\s*\{{?\s*-?[1-9]\s*\}}?)?)?)\s*\.?$"
)
_UNIT_PART = re.compile(rf"([{_LETTER}][{_LETTER}. ]*?)\s*(?:\^\s*\{{?\s*(-?[1-9])\s*\}}?)?\s*$")
_MONEY = re.compile(r"^(-?)\s*[＄$€£]\s*(?=[\d.(\\-])")
_CURRENCY = {"＄": "dollar", "$": "dollar", "€": "euro", "£": "pound sterling"}


def plain(text: str) -> str:
    r"""`text` without what only lays it out: `$`, `\left`, spaces of LaTeX, bold, `\text`."""
    said = text.strip().translate(_CHARACTERS).strip("*_ \t\r\n")
    if "\\" in said or "{" in said or "<" in said or ">" in said or "*" in said or "!=" in said:
        said = _BOLD.sub(lambda found: " " + _SPACED_DIGITS.sub("", found[1]) + " ", said)
        for pattern, replacement in _STEPS:
            said = pattern.sub(replacement, said)
        said = _TEXT.sub(r" \1 ", said)
    if said.count("$") % 2 == 0:
        said = said.replace("$", " ")
    said = said.strip()
    return said if said.endswith("...") else said.rstrip(".,;:").strip()


def compact(text: str) -> str:
    """`text` in its plain form without white space; equal ones are equal answers."""
    # Between digits a space separates: "1 2" is not "12".
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", plain(text))


def measured(said: str) -> Measured:
    """The value and the unit of a plain text: `5 cm^2`, `$18`, `62.5%`, `7 apples`."""
    found = _MONEY.match(said)
    if found:
        sign = _CURRENCY[found[0].strip("- \t")[0]]
        rest = found[1] + said[found.end() :]
        inner = measured(rest)
        return Measured(inner.text, Unit(Fraction(1), ((sign, 1),)))
    if said.endswith(("€", "£", "＄", "$")) and said[:-1].strip():
        return Measured(said[:-1].strip(), Unit(Fraction(1), ((_CURRENCY[said[-1]], 1),)))
    if said.endswith("%"):
        return Measured(said[:-1].strip(), Unit(Fraction(1), (("percent", 1),)))
    match = _UNIT_END.match(said) if said[-1:].isalnum() or said[-1:] in "}." else None
    if match is None:
        return Measured(said, None)
    unit = unit_of(match["unit"], bare=not match["space"], number=_is_number(match["value"]))
    return Measured(said, None) if unit is None else Measured(match["value"].strip(), unit)


def unit_of(name: str, *, bare: bool = False, number: bool = True) -> Unit | None:
    """The unit that `name` spells; None where it can only be mathematics.

    `bare` says that it stands right behind its value, `number` that the value is a number: a
    single letter is a unit only behind a number and a space.
    """
    factor, powers = Fraction(1), dict[str, int]()
    over = re.split(r"\s*/\s*|\s+per\s+", plain(name).strip())
    if len(over) > 2:
        return None
    for sign, part in zip((1, -1), over, strict=False):
        if part == "%":
            part = "percent"
        match = _UNIT_PART.match(part)
        if match is None:
            return None
        power = sign * int(match[2] or 1)
        words = match[1].replace(".", "").split()
        while words and words[0] in ("square", "sq", "cubic"):
            power *= 3 if words.pop(0) == "cubic" else 2
        known = _dimension(words, single=number and not bare)
        if known is None:
            return None
        dimension, scale = known
        factor *= scale**power
        powers[dimension] = powers.get(dimension, 0) + power
    left = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(factor, left)


def _dimension(words: list[str], *, single: bool) -> tuple[str, Fraction] | None:
    if not words or any(word.lower() in _NOT_UNITS for word in words):
        return None
    if len(words) == 1:
        word = words[0]
        known = _known(word)
        if len(word) == 1:
            return known if single else None
        if known is not None:
            return known
    if any(len(word) < 3 or not word[1:].islower() for word in words if word not in ("of", "in")):
        return None
    return " ".join(word.lower().removesuffix("s") for word in words), Fraction(1)


def _known(word: str) -> tuple[str, Fraction] | None:
    for one in (word, word.removesuffix("s"), word.lower(), word.lower().removesuffix("s")):
        if one in _UNITS and (len(one) > 1 or len(word) == 1):
            return _UNITS[one]
    return None


def _is_number(text: str) -> bool:
    return not re.search(r"(?<!\\)[A-Za-z]", re.sub(r"\\[a-zA-Z]+", "", text))

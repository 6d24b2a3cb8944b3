"""WebShop's reward (arXiv:2207.01206, section 3 and its published code), from what was bought."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from .records import Goal, Product

_ALIKE = 85

# The colour words that options are reduced to, in the order in which they are tried, as published.
_COLOR_WORDS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown "
    "burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee "
    "cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia "
    "gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender "
    "lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor "
    "mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red "
    "rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower "
    "tan taupe teal tiger turquoise violet walnut wheat white wine yellow"
)
_COLORS = tuple(_COLOR_WORDS.split())
_NO_NOUNS = (
    "a an and as at be best by compatible extra for from good great in into is it its made new non "
    "of off on or our over per pro the this to under up with without you your"
)
_FUNCTION_WORDS = frozenset(_NO_NOUNS.split())
_NO_NOUN = re.compile(r".{2,}(?:able|ible|ful|less|ous|ive|ed|ing|ly|proof|ish)")


class Score(NamedTuple):
    """The reward and its parts: shares of attributes and options met, price met, type factor."""

    total: float
    type: float
    attributes: float
    options: float
    price: float


def score(product: Product, chosen: Collection[str], goal: Goal, wanted: Product) -> Score:
    """The reward of buying `product` with the option values `chosen`; `wanted` is the goal's own.

    total = type * (attributes met + options met + price met) / (attributes + options + 1), the
    counts over those of the goal. An attribute is met if one of the product's is alike
    (`token_set_ratio` above 85), or if it stands in title, features or description; an option if
    a chosen one is alike, colours reduced to their basic names.
    """
    attributes = sum(_met(one, product) for one in goal.attributes)
    values = [basic_color(one) for one in chosen]
    options = sum(
        any(token_set_ratio(value, basic_color(one)) > _ALIKE for value in values)
        for one in goal.options
    )
    price = product.price <= goal.price_upper
    factor = type_factor(product, wanted)
    every = len(goal.attributes) + len(goal.options) + 1
    return Score(
        total=factor * (attributes + options + price) / every,
        type=factor,
        attributes=attributes / len(goal.attributes) if goal.attributes else 1.0,
        options=options / len(goal.options) if goal.options else 1.0,
        price=float(price),
    )


def type_factor(product: Product, wanted: Product) -> float:
    """1.0 for a product of the wanted type, else 0.5, 0.1 or 0.0, by the nouns of the titles.

    1.0: same query, two common levels of the category, or more than 0.2 of the wanted title's
    nouns; otherwise 0.5. Whatever matched: 0.1 with less than 0.1 of the nouns, 0.0 with none.
    """
    nouns, found = title_nouns(wanted.title), title_nouns(product.title)
    share = len(nouns & found) / len(nouns) if nouns else 0.2
    if share == 0.0:
        return 0.0
    if share < 0.1:
        return 0.1
    levels = _levels(product.category) & _levels(wanted.category)
    matched = product.query == wanted.query or len(levels) >= 2 or share > 0.2
    return 1.0 if matched else 0.5


@lru_cache(maxsize=4096)
def title_nouns(title: str) -> frozenset[str]:
    """The words of a title that may be nouns: no numbers, function words or usual adjectives.

    WebShop asks a tagger (spaCy's small English model) for nouns and names; this rule needs none
    and keeps a few more words.
    """
    words = re.findall(r"[^\W\d_]+", title.lower())
    return frozenset(
        one for one in words if one not in _FUNCTION_WORDS and not _NO_NOUN.fullmatch(one)
    )


def basic_color(value: str) -> str:
    """The first colour word that stands anywhere in `value`, or `value` itself."""
    return next((color for color in _COLORS if color in value), value)


def _met(attribute: str, product: Product) -> bool:
    if any(token_set_ratio(one, attribute) > _ALIKE for one in product.attributes):
        return True
    texts = (product.title, " ".join(product.features), product.description)
    return any(attribute in text.lower() for text in texts)


def _levels(category: str) -> set[str]:
    return {level.strip() for level in category.split("›")}


@lru_cache(maxsize=65536)
def token_set_ratio(one: str, other: str) -> int:
    """How alike two texts are as sets of words, 0 to 100, as the library thefuzz has it.

    The words that both have are compared with those words and the rest of either, and the two
    with each other; the best of the three ratios counts.
    """
    words, others = _words(one), _words(other)
    if not words or not others:
        return 0
    common = " ".join(sorted(words & others))
    first = f"{common} {' '.join(sorted(words - others))}".strip()
    second = f"{common} {' '.join(sorted(others - words))}".strip()
    pairs = ((common, first), (common, second), (first, second))
    return max(_ratio(a, b) for a, b in pairs)


def _words(text: str) -> set[str]:
    # As thefuzz does, what is not ASCII is dropped.
    plain = text.encode("ascii", "ignore").decode()
    return set(re.sub(r"\W", " ", plain).lower().split())


def _ratio(one: str, other: str) -> int:
    """100 times twice the longest common subsequence over both lengths, rounded."""
    if not one or not other:
        return 0
    if one == other:
        return 100
    row = [0] * (len(other) + 1)
    for letter in one:
        diagonal = 0
        for place, against in enumerate(other, start=1):
            above = row[place]
            row[place] = diagonal + 1 if letter == against else max(above, row[place - 1])
            diagonal = above
    return round(200 * row[-1] / (len(one) + len(other)))

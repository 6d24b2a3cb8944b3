"""A shop's catalogue made by seed, and the goals of its customers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from ..games.base import chosen_split
from .records import Goal, Product, made_goal

_GOALS_PER_PRODUCT = 3


class _Line(NamedTuple):
    """A kind of product: its noun, its place in the shop, what products of it differ in.

    No two values of an option are alike to the reward.
    """

    noun: str
    category: str
    attributes: str
    options: Mapping[str, str]
    prices: tuple[int, int]


_COLORS = "black|white|navy blue|forest green|burgundy|grey|beige|mustard yellow"
_SIZES = "small|medium|large|petite|tall"
_LINES = (
    _Line(
        "desk lamp",
        "Home › Lighting › Desk Lamps",
        "dimmable|usb powered|touch control|energy efficient|foldable|battery operated|swing arm",
        {"color": _COLORS, "light": "warm|neutral|daylight"},
        (15, 80),
    ),
    _Line(
        "floor rug",
        "Home › Textiles › Rugs",
        "machine washable|non slip|stain resistant|hand woven|low pile|fade resistant|pet friendly",
        {"color": _COLORS, "size": "2 x 3 feet|4 x 6 feet|5 x 7 feet|8 x 10 feet"},
        (20, 300),
    ),
    _Line(
        "storage ottoman",
        "Home › Furniture › Ottomans",
        "space saving|faux leather|solid wood|easy clean|foldable|heavy duty|memory foam",
        {"color": _COLORS, "size": "15 inch|30 inch|42 inch"},
        (30, 180),
    ),
    _Line(
        "water bottle",
        "Sports › Drinkware › Bottles",
        "bpa free|leak proof|double wall|dishwasher safe|stainless steel|wide mouth|insulated",
        {"color": _COLORS, "size": "12 oz|20 oz|32 oz|45 oz"},
        (9, 45),
    ),
    _Line(
        "running shoes",
        "Fashion › Shoes › Running",
        "rubber sole|arch support|slip resistant|memory foam|breathable|vegan leather|reflective",
        {"color": _COLORS, "size": "6|7|8|9|10|11|12"},
        (35, 160),
    ),
    _Line(
        "rain jacket",
        "Fashion › Clothing › Jackets",
        "wind proof|water resistant|machine washable|drawstring waist|long sleeve|packable|lined",
        {"color": _COLORS, "size": _SIZES},
        (25, 190),
    ),
    _Line(
        "wool sweater",
        "Fashion › Clothing › Sweaters",
        "hand wash|loose fit|crew neck|turtleneck|long sleeve|soft touch|ribbed hem",
        {"color": _COLORS, "size": _SIZES},
        (20, 140),
    ),
    _Line(
        "trail mix",
        "Grocery › Snacks › Nuts",
        "gluten free|non gmo|low sodium|sugar free|plant based|high protein|kosher certified",
        {
            "flavor": "almond|cashew|chocolate|coconut|tropical",
            "size": "single bag|pack of six|case of twelve",
        },
        (5, 60),
    ),
    _Line(
        "green tea",
        "Grocery › Beverages › Tea",
        "caffeine free|certified organic|sugar free|individually wrapped|fair trade|non gmo",
        {
            "flavor": "jasmine|lemon|mint|peach|original",
            "size": "box of twenty|box of fifty|tin of hundred",
        },
        (4, 50),
    ),
    _Line(
        "face moisturizer",
        "Beauty › Skin Care › Face",
        "fragrance free|cruelty free|long lasting|sensitive skin|anti aging|hyaluronic acid",
        {"size": "jar|tube|pump bottle", "scent": "unscented|rose|cucumber|aloe"},
        (8, 90),
    ),
    _Line(
        "wireless headphones",
        "Electronics › Audio › Headphones",
        "noise cancelling|fast charging|hands free|water resistant|over ear|carrying case",
        {"color": _COLORS, "style": "standard|pro|kids"},
        (20, 350),
    ),
    _Line(
        "phone charger",
        "Electronics › Accessories › Chargers",
        "fast charging|travel size|overheat protection|foldable plug|high speed|dual port|usb c",
        {"color": "black|white|grey", "size": "3 feet|6 feet|10 feet"},
        (7, 60),
    ),
)
_BRAND_NAMES = (
    "Alderbrook Bexley Corvane Dunmore Eastwick Fenlake Greymoor Halvard Ilsworth Jorvane Kestrel "
    "Larkfield Marlowe Northam Oakhurst Penrose Quillon Ravensby Sandholm Tolland"
)
_BRANDS = tuple(_BRAND_NAMES.split())
_GRADES = (
    "Essential",
    "Classic",
    "Premium",
    "Compact",
    "Everyday",
    "Signature",
    "Studio",
    "Heritage",
)
_USES = ("at home", "on the road", "as a gift", "every day", "in a small flat", "with the family")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


@lru_cache(maxsize=8)
def made_products(amount: int) -> tuple[Product, ...]:
    """`amount` products, the lines taking turns; the first ones of a larger catalogue are these."""
    found: dict[str, Product] = {}
    titles: set[str] = set()
    number = 0
    while len(found) < amount:
        product = _product(number)
        # A shop with two products of one title could not say which of them was meant.
        if product.title not in titles and product.asin not in found:
            titles.add(product.title)
            found[product.asin] = product
        number += 1
    return tuple(found.values())


def _product(number: int) -> Product:
    rng = random.Random(f"webshop/{number}")
    line = _LINES[number % len(_LINES)]
    attributes = rng.sample(line.attributes.split("|"), rng.randint(3, 5))
    brand, grade = rng.choice(_BRANDS), rng.choice(_GRADES)
    told = attributes[: rng.randint(1, 2)]
    options = {}
    for name, values in line.options.items():
        every = values.split("|")
        kept = rng.sample(every, rng.randint(2, len(every)))
        options[name] = tuple(one for one in every if one in kept)
    price = rng.randint(*line.prices) - rng.choice((0.01, 0.05, 0.5))
    features = [f"{one.capitalize()}." for one in rng.sample(attributes, len(attributes))]
    return Product(
        asin="B" + "".join(rng.choices(_LETTERS, k=9)),
        title=f"{brand} {grade} {line.noun.title()}, {', '.join(told)}",
        description=(
            f"The {grade.lower()} {line.noun} by {brand}, made to be used {rng.choice(_USES)}. "
            f"It is {' and '.join(attributes[:2])}."
        ),
        features=tuple(features),
        price=round(price, 2),
        price_tag=f"${price:.2f}",
        options=options,
        attributes=tuple(attributes),
        category=line.category,
        query=line.noun,
    )


def goals_of(products: tuple[Product, ...]) -> dict[str, list[Goal]]:
    """Three goals for each product with attributes, by split; products take turns.

    Which split a product's goals belong to is decided by its id, so that no product is wanted in
    both. Of equal instructions the first stays.
    """
    found: dict[str, list[Goal]] = {"train": [], "eval": []}
    seen: set[str] = set()
    for turn in range(_GOALS_PER_PRODUCT):
        for product in products:
            if not product.attributes:
                continue
            split = chosen_split(product.asin)
            rng = random.Random(f"webshop/goal/{product.asin}/{turn}")
            goal = made_goal(product, f"{split}-{product.asin}-{turn}", rng)
            if goal.instruction not in seen:
                seen.add(goal.instruction)
                found[split].append(goal)
    return found

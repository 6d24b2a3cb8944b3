"""What a shop sells and what a customer wants."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NO_LIMIT = 1_000_000.0
"""The price limit of a goal that names none."""

_LIMITS = tuple(10.0 * step for step in range(1, 100))


@dataclass(frozen=True, slots=True)
class Product:
    """A product as its pages show it, with what only the reward looks at.

    `attributes`, `category` (levels joined by `›`) and `query` (what scraped or made it) are
    never shown. `price` is in dollars; `price_tag` is how it is written.
    """

    asin: str
    title: str
    description: str
    features: tuple[str, ...]
    price: float
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str

    @property
    def contents(self) -> str:
        """What the search index holds beside the title."""
        listed = [f"{name}: {', '.join(values)}" for name, values in self.options.items()]
        return " ".join((self.description, *self.features[:1], ", and ".join(listed))).lower()


@dataclass(frozen=True, slots=True)
class Goal:
    """What a customer asks for: an instruction, and what the bought product is compared with.

    `asin` is the product that the goal was made from; `options` are values, without names.
    """

    id: str
    instruction: str
    asin: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    price_upper: float


def price_limit(price: float, rng: random.Random) -> tuple[float, str]:
    """A limit above `price` and how an instruction words it, as WebShop draws it.

    Of the next four multiples of 10 dollars (below 1,000) above the price, the larger of two
    different ones; no limit where there are not two.
    """
    above = [limit for limit in _LIMITS if limit > price][:4]
    if len(above) < 2:
        return NO_LIMIT, ""
    limit = max(rng.sample(above, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


def made_goal(product: Product, id_: str, rng: random.Random) -> Goal:
    """A goal that buying `product` with one of its options reaches in full."""
    wanted = rng.sample(product.attributes, min(len(product.attributes), rng.choice((1, 2, 2))))
    chosen = {name: rng.choice(values) for name, values in product.options.items() if values}
    limit, said = price_limit(product.price, rng)
    named = ", and ".join(f"{name}: {value}" for name, value in chosen.items())
    options = f" with {named}" if named else ""
    text = f"Find me {', '.join(wanted)} {product.query}{options}{said}"
    return Goal(id_, text, product.asin, tuple(wanted), tuple(chosen.values()), limit)


def by_asin(products: Sequence[Product]) -> dict[str, Product]:
    """The products by their ids."""
    return {product.asin: product for product in products}

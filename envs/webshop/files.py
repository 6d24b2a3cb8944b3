"""WebShop's files: products, their attributes, people's instructions, and lists of goals."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agentrl.core.datasets import Row, read_rows, shown
from agentrl.core.errors import DataError

from .records import NO_LIMIT, Goal, Product, by_asin, price_limit

_NO_PRICE = 100.0
_LONGEST_ASIN = 10


class GoalRow(NamedTuple):
    """A row of a list of goals; all but `id` and `text` are empty where the row lacks them."""

    id: str
    text: str
    asin: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    price_upper: float
    place: str


def read_products(path: str, attributes: str = "") -> tuple[Product, ...]:
    """The products of a file in the format of WebShop's `items_shuffle.json`.

    `attributes` is a file like its `items_ins_v2.json`: an object of product ids, each with
    `attributes`. Products with an id of more than 10 characters, or one seen before, are left
    out, as WebShop does. A price range gives a price inside it, drawn from the product's id.

    Raises:
        DataError: naming file and place.
    """
    known = _read_object(attributes) if attributes else {}
    found: dict[str, Product] = {}
    for row in read_rows(path, name="product file"):
        asin = row.text("asin")
        if asin != "nan" and len(asin) <= _LONGEST_ASIN and asin not in found:
            found[asin] = _product(row, asin, known.get(asin))
    if not found:
        raise DataError(f"{path}: there is no product in it")
    return tuple(found.values())


def read_instructions(path: str, products: Sequence[Product]) -> list[Goal]:
    """The goals of a file like WebShop's `items_human_ins.json`, in the products' order.

    It is an object of product ids, each with a list of objects with `instruction`,
    `instruction_attributes` and `instruction_options`. Those without attributes, and those of
    products that are not in the catalogue, are left out. A price limit is drawn and added to the
    text, as WebShop does.

    Raises:
        DataError: naming file and product.
    """
    entries = _read_object(path)
    found: list[Goal] = []
    for product in products:
        listed = entries.get(product.asin, [])
        if not isinstance(listed, list):
            raise DataError(f"{path}: {product.asin}: not a list, got {shown(listed)}")
        for number, entry in enumerate(listed):
            place = f"{path}: {product.asin}[{number}]"
            if not isinstance(entry, dict):
                raise DataError(f"{place}: not an object, got {shown(entry)}")
            row = Row(place, entry)
            attributes = row.texts("instruction_attributes")
            if attributes:
                found.append(_human_goal(row, product, number, attributes))
    return found


def _human_goal(row: Row, product: Product, number: int, attributes: tuple[str, ...]) -> Goal:
    text = row.text("instruction").strip(".")
    limit, said = price_limit(product.price, random.Random(f"{product.asin}/{number}"))
    return Goal(
        id=f"{product.asin}-{number}",
        instruction=text + said,
        asin=product.asin,
        attributes=attributes,
        options=row.texts("instruction_options"),
        price_upper=limit,
    )


def read_goals(path: str) -> list[GoalRow]:
    """The rows of a list of goals: each with the text `goal`.

    It may have `id`, `asin`, the lists of texts `attributes` and `options`, and `price_upper`.

    Raises:
        DataError: naming file, line and what was found there.
    """
    found = []
    for number, row in enumerate(read_rows(path, name="list of goals")):
        data = row.data
        limit = data.get("price_upper", NO_LIMIT)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
            raise DataError(f"{row.place}: 'price_upper' must be above 0, got {shown(limit)}")
        found.append(
            GoalRow(
                id=row.id() if "id" in data else str(number),
                text=row.text("goal"),
                asin=row.text("asin") if "asin" in data else "",
                attributes=row.texts("attributes") if "attributes" in data else (),
                options=row.texts("options") if "options" in data else (),
                price_upper=float(limit),
                place=row.place,
            )
        )
    if not found:
        raise DataError(f"{path}: there is no goal in it")
    return found


def matched_goals(
    rows: Sequence[GoalRow], products: Sequence[Product], known: Sequence[Goal]
) -> list[Goal]:
    """The goals that `rows` name, in their order.

    A row with `asin` and `attributes` is a goal itself; any other is looked up among the `known`
    instructions by its text (letters and digits alone), and left out where none has it.

    Raises:
        DataError: an `asin` that is not in the catalogue, or no row that could be matched.
    """
    catalogue = by_asin(products)
    by_text = {_letters(_without_limit(goal.instruction)): goal for goal in known}
    found: list[Goal] = []
    for row in rows:
        if row.asin and row.attributes:
            if row.asin not in catalogue:
                raise DataError(f"{row.place}: no product of the catalogue has asin {row.asin!r}")
            found.append(
                Goal(row.id, row.text, row.asin, row.attributes, row.options, row.price_upper)
            )
        elif goal := by_text.get(_letters(row.text)):
            found.append(goal)
    if not found:
        raise DataError(
            f"none of the {len(rows)} goals has an asin with attributes, or the text of one of "
            f"the {len(known)} instructions: give `instructions` for these products"
        )
    return found


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _without_limit(text: str) -> str:
    return re.sub(r", and price lower than [0-9.]+ dollars$", "", text)


def _product(row: Row, asin: str, extra: object) -> Product:
    price, tag = _price(row, asin)
    features = row.data.get("small_description") or ()
    listed = features if isinstance(features, list) else [features]
    found = extra.get("attributes", ()) if isinstance(extra, dict) else ()
    return Product(
        asin=asin,
        title=row.text("name"),
        description=_text(row, "full_description"),
        features=tuple(str(one) for one in listed if one),
        price=price,
        price_tag=tag,
        options=dict(_options(row)),
        attributes=tuple(str(one) for one in found),
        category=_text(row, "product_category"),
        query=_text(row, "query").lower().strip(),
    )


def _text(row: Row, key: str) -> str:
    value = row.data.get(key)
    return value if isinstance(value, str) else ""


def _price(row: Row, asin: str) -> tuple[float, str]:
    """The price and its tag: of `$12.50`, or of a range `$12.50$20.00`."""
    pricing = row.data.get("pricing")
    if not pricing:
        return _NO_PRICE, f"${_NO_PRICE}"
    numbers = [re.sub(r"[^\d.]", "", part) for part in str(pricing).split("$")[1:]]
    try:
        prices = [float(number) for number in numbers]
    except ValueError:
        prices = []
    if not prices:
        raise DataError(f"{row.place}: 'pricing' must be like \"$12.50\", got {shown(pricing)}")
    if len(prices) == 1:
        return prices[0], f"${prices[0]}"
    return random.Random(asin).uniform(*prices[:2]), f"${prices[0]} to ${prices[1]}"


def _options(row: Row) -> Iterator[tuple[str, tuple[str, ...]]]:
    given = row.data.get("customization_options") or {}
    if not isinstance(given, Mapping):
        raise DataError(f"{row.place}: 'customization_options' must be an object")
    for name, contents in given.items():
        if contents is None:
            continue
        if not isinstance(contents, list) or not all(
            isinstance(one, Mapping) and isinstance(one.get("value"), str) for one in contents
        ):
            raise DataError(
                f"{row.place}: option {name!r} must be a list of objects with 'value', got "
                f"{shown(contents)}"
            )
        yield (
            name.lower(),
            tuple(one["value"].strip().replace("/", " | ").lower() for one in contents),
        )


def _read_object(path: str) -> Mapping[str, object]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: must be one JSON object of product ids, got {shown(found)}")
    return found

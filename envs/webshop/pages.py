"""The shop's pages: what they show, what can be clicked on them and where that leads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from .records import Product

PAGE_SIZE = 10
BUY, BACK, PREVIOUS, NEXT = "buy now", "back to search", "< prev", "next >"
_SUB_PAGES = ("description", "features")
_ACTION = re.compile(r"(search|click)\[(.*)\]", re.IGNORECASE | re.DOTALL)

PageKind: TypeAlias = Literal["search", "results", "item", "description", "features"]


class Page(NamedTuple):
    """Where the customer is. `found` are the ids of the last search's products.

    `number` counts pages of results from 1; `chosen` are the options of the item, by name.
    """

    kind: PageKind = "search"
    found: tuple[str, ...] = ()
    number: int = 1
    asin: str = ""
    chosen: tuple[tuple[str, str], ...] = ()


class Clicked(NamedTuple):
    """An action: `search` with its query, or `click` with what is clicked."""

    verb: Literal["search", "click"]
    text: str


def read_action(text: str) -> Clicked | None:
    """The action that `search[...]` or `click[...]` spells, in lower case; None otherwise."""
    match = _ACTION.fullmatch(text.strip())
    if not match or not match[2].strip():
        return None
    return Clicked("search" if match[1].lower() == "search" else "click", match[2].strip().lower())


def shown_results(page: Page) -> tuple[str, ...]:
    """The ids on this page of results."""
    return page.found[(page.number - 1) * PAGE_SIZE : page.number * PAGE_SIZE]


def clickable(page: Page, products: Mapping[str, Product]) -> list[str]:
    """What can be clicked, in the order of the page, in lower case."""
    if page.kind == "search":
        return []
    if page.kind == "results":
        turns = [PREVIOUS] * (page.number > 1)
        turns += [NEXT] * (page.number * PAGE_SIZE < len(page.found))
        return [BACK, *turns, *(asin.lower() for asin in shown_results(page))]
    if page.kind == "item":
        options = products[page.asin].options.values()
        values = dict.fromkeys(value for several in options for value in several)
        return [BACK, PREVIOUS, *values, *_SUB_PAGES, BUY]
    return [BACK, PREVIOUS]


def follow(page: Page, label: str, products: Mapping[str, Product]) -> Page:
    """The page behind `label`, which is clickable; buying leads nowhere."""
    if label == BACK:
        return Page()
    if page.kind == "results" and label in (PREVIOUS, NEXT):
        return page._replace(number=page.number + (1 if label == NEXT else -1))
    if page.kind == "results":
        asin = next(one for one in shown_results(page) if one.lower() == label)
        return page._replace(kind="item", asin=asin)
    if page.kind != "item":
        return page._replace(kind="item")
    if label == PREVIOUS:
        return page._replace(kind="results", asin="", chosen=())
    # As in WebShop, a value that two options share is the last one's, and options go before
    # buttons of the same name.
    named = [name for name, values in products[page.asin].options.items() if label in values]
    if named:
        chosen = {**dict(page.chosen), named[-1]: label}
        return page._replace(chosen=tuple(sorted(chosen.items())))
    if label in _SUB_PAGES:
        return page._replace(kind="description" if label == "description" else "features")
    return page


def written(page: Page, products: Mapping[str, Product]) -> str:
    """The page as text, with everything that can be clicked in brackets."""
    if page.kind == "search":
        return "[Search]"
    lines = ["[Back to Search]"]
    if page.kind == "results":
        return "\n".join(lines + _results(page, products))
    product = products[page.asin]
    lines.append("[< Prev]")
    if page.kind == "description":
        return "\n".join([*lines, product.description])
    if page.kind == "features":
        return "\n".join([*lines, *product.features])
    for name, values in product.options.items():
        lines.append(f"{name}: {' '.join(f'[{value}]' for value in values)}")
    lines += [product.title, f"Price: {product.price_tag}"]
    if page.chosen:
        lines.append(f"Chosen: {', '.join(f'{name}: {value}' for name, value in page.chosen)}")
    return "\n".join([*lines, "[Description]", "[Features]", "[Buy Now]"])


def _results(page: Page, products: Mapping[str, Product]) -> list[str]:
    lines = [f"Page {page.number} (Total results: {len(page.found)})"]
    lines += ["[< Prev]"] * (page.number > 1)
    lines += ["[Next >]"] * (page.number * PAGE_SIZE < len(page.found))
    for asin in shown_results(page):
        lines += [f"[{asin}]", products[asin].title, products[asin].price_tag]
    return lines

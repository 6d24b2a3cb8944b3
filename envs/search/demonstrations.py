"""A scripted expert that answers questions about made-up worlds, as demonstrations for imitation.

Names are invented afresh in every demonstration, so that what can be learnt is to copy: a name
from the question into the query, a value from the passage into the next query or the answer.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from agentrl.core.env import Demonstration, Observation
from agentrl.core.types import Message

from . import facts
from .records import Question

_CONNECTORS = ("of", "and", "de", "la", "el", "the", "del", "and the")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class Search(NamedTuple):
    """A query, the passage that it finds, and the value that is wanted of it."""

    query: str
    passage: str
    value: str


def search_action(query: str) -> str:
    """The action that searches."""
    return f"<search>{query}</search>"


def answer_action(text: str) -> str:
    """The action that answers; the space makes the first word the token that it is in a passage."""
    return f"<answer> {text}</answer>"


def result_text(passage: str) -> str:
    """What the environment appends after a search."""
    return f"<result>{passage}</result>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """How demonstrations are drawn.

    `real` is the share of questions about real training entities; `hops` weighs questions of one,
    two and three hops; `hasty` is the chance, after each search but the last, to answer at once
    with what was found, which is wrong.
    """

    real: float = 0.2
    hops: tuple[float, float, float] = (1.0, 1.0, 1.0)
    hasty: float = 0.0

    def demonstrations(self, seed: int) -> Iterator[Demonstration]:
        """An endless stream, the same for the same seed."""
        rng = random.Random(f"demonstrations/{seed}")
        while True:
            hops = rng.choices((1, 2, 3), self.hops)[0]
            if rng.random() < self.real:
                yield self._perform(*_remembered(hops, rng), rng)
            else:
                yield self._perform(*_invented(hops, rng), rng)

    def _perform(
        self, question: str, searches: Sequence[Search], rng: random.Random
    ) -> Demonstration:
        turns: list[tuple[str, Observation]] = []
        answer = ""
        for place, (query, passage, value) in enumerate(searches, start=1):
            found = Message.of("inline", result_text(passage))
            turns.append((search_action(query), (found,)))
            answer = value
            if place < len(searches) and rng.random() < self.hasty:
                break
        turns.append((answer_action(answer), ()))
        return Demonstration((Message.of("user", question),), tuple(turns))


def _remembered(hops: int, rng: random.Random) -> tuple[str, list[Search]]:
    """A training question about the real world, and the searches for it."""
    by_hops, texts = _training_questions()
    question = rng.choice(by_hops[hops])
    # What is wanted of a passage is the subject of the next one, and of the last the answer.
    values = [*(id_.split("/", 1)[1] for id_ in question.support[1:]), question.answers[0]]
    triples = zip(question.queries, question.support, values, strict=True)
    return question.text, [Search(query, texts[id_], value) for query, id_, value in triples]


@cache
def _training_questions() -> tuple[dict[int, list[Question]], dict[str, str]]:
    by_hops: dict[int, list[Question]] = defaultdict(list)
    for question in facts.questions("train"):
        by_hops[question.hops].append(question)
    return by_hops, {passage.id: passage.text for passage in facts.passages()}


def _invented(hops: int, rng: random.Random) -> tuple[str, list[Search]]:
    """A question about a world made up for it, and the searches for it."""
    chain = rng.choice(facts.CHAINS[hops])
    kind: facts.Kind = "city" if chain.start == "city" else "country"
    entity = _entity(kind, _name(rng), rng)
    start = entity.values["domain"] if chain.start == "domain" else entity.name
    found, subject = [], start
    for relation in chain.relations:
        value = entity.values[relation]
        found.append(Search(facts.query_text(relation, subject), facts.passage_text(entity), value))
        subject = value
        if relation in facts.VALUE_KIND:
            near = {"country": entity.name} if entity.kind == "country" else {}
            entity = _entity(facts.VALUE_KIND[relation], value, rng, near)
    return facts.question_text(chain, start), found


def _entity(
    kind: facts.Kind, name: str, rng: random.Random, known: Mapping[str, str] | None = None
) -> facts.Entity:
    """An invented city or country, with the values that are `known` from an earlier passage."""
    relations = facts.CITY_RELATIONS if kind == "city" else facts.COUNTRY_RELATIONS
    values = {item: _value(item, rng) for item in relations}
    return facts.Entity(kind, name, values | dict(known or {}), home="")


def _value(relation: str, rng: random.Random) -> str:
    match relation:
        case "population":
            return facts.population_text(round(10 ** rng.uniform(3.3, 7.4)))
        case "latitude":
            return facts.latitude_text(rng.uniform(-60.0, 75.0))
        case "domain":
            return _domain(rng)
        case "currency":
            return _word(rng)
        case _:
            return _name(rng)


def _domain(rng: random.Random) -> str:
    return "." + rng.choice(_ALPHABET) + rng.choice(_ALPHABET)


@cache
def _words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words in the names of training entities, and whole names."""
    mine = [item for item in facts.entities() if facts.split_of(item.home) == "train"]
    names = sorted({item.name for item in mine})
    words = sorted({word for name in names for word in name.split() if len(word) > 2})
    return tuple(words), tuple(names)


def _word(rng: random.Random) -> str:
    """A real word, two halves of real words, or pieces of any words.

    All pieces are equally likely, however rare, since names of the evaluation have spellings that
    are rare in those of training.
    """
    words, _ = _words()
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(words)
    if kind < 0.5:
        first, second = rng.choice(words), rng.choice(words)
        half = first[: rng.randint(1, len(first))] + second[rng.randint(1, len(second)) :].lower()
        return half[:14]
    return "".join(rng.choices(_pieces(), k=rng.randint(1, 4))).capitalize()


@cache
def _pieces() -> tuple[str, ...]:
    """Every run of two or three letters in a training name."""
    words = [word.lower() for word in _words()[0]]
    found = {word[i : i + n] for word in words for n in (2, 3) for i in range(len(word) - n + 1)}
    return tuple(sorted(piece for piece in found if piece.isalpha()))


def _name(rng: random.Random) -> str:
    """A name of one to four words, at times that of a real training entity of any kind."""
    if rng.random() < 0.2:
        return rng.choice(_words()[1])
    parts = [_word(rng) for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0])]
    if len(parts) > 1 and rng.random() < 0.3:
        parts.insert(1, rng.choice(_CONNECTORS))
    return (" " if rng.random() < 0.9 else "-").join(parts)

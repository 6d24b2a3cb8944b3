"""What a household is, what each command does to it, and when a goal is reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from . import wording
from .commands import Command
from .kinds import (
    CLEANABLE,
    COOLABLE,
    COOLERS,
    HEATABLE,
    HEATERS,
    LAMP,
    OPENABLE,
    PLACES_OF,
    SINKS,
    kind_of,
)

HAND = "hand"
"""Where an object is that is carried."""

GoalType: TypeAlias = Literal[
    "pick_and_place",
    "look_at_obj",
    "pick_clean_then_place",
    "pick_heat_then_place",
    "pick_cool_then_place",
    "pick_two_obj",
]


class Goal(NamedTuple):
    """What is to be done with objects of a kind, and where: a kind of receptacle, or the lamp."""

    type: GoalType
    thing: str
    place: str


@dataclass(frozen=True, slots=True)
class Household:
    """A room and what is in it. Never changed in place: a command makes a new one.

    `at` is the receptacle that the player stands at ("": the middle of the room). `where` maps
    each object to its receptacle, or to `HAND`.
    """

    receptacles: tuple[str, ...]
    where: Mapping[str, str]
    at: str = ""
    opened: frozenset[str] = frozenset()
    clean: frozenset[str] = frozenset()
    hot: frozenset[str] = frozenset()
    cool: frozenset[str] = frozenset()
    lit: frozenset[str] = frozenset()

    @property
    def held(self) -> str:
        """The object that is carried, or ""."""
        return next((thing for thing, place in self.where.items() if place == HAND), "")

    def is_open(self, place: str) -> bool:
        """Whether what is in or on `place` can be seen and reached."""
        return kind_of(place) not in OPENABLE or place in self.opened

    def inside(self, place: str) -> list[str]:
        """The objects in or on `place`."""
        return [thing for thing, where in self.where.items() if where == place]

    def seen(self, place: str) -> str:
        """What `place` looks like from where it stands."""
        if not self.is_open(place):
            return wording.closed(place)
        return wording.contents(place, self.inside(place), has_door=kind_of(place) in OPENABLE)

    def key(self) -> str:
        """All of the state in one text, equal exactly for equal states of the same room."""
        parts: tuple[Iterable[str], ...] = (
            (f"{thing}={place}" for thing, place in sorted(self.where.items())),
            *(sorted(one) for one in (self.opened, self.clean, self.hot, self.cool, self.lit)),
        )
        return "\n".join((self.at, *(";".join(part) for part in parts)))

    def commands(self) -> Iterator[Command]:
        """Every command that does something here, in a fixed order."""
        for place in self.receptacles:
            if place != self.at:
                yield Command("go", place=place)
        here = self.at
        if here and kind_of(here) in OPENABLE:
            yield Command("close" if here in self.opened else "open", place=here)
        things = self.inside(here) if here and self.is_open(here) else []
        held = self.held
        for thing in sorted(things):
            if not held and kind_of(thing) != LAMP:
                yield Command("take", thing, here)
            if kind_of(thing) == LAMP:
                yield Command("use", thing)
        if held:
            options = [Command(verb, held, here) for verb in ("put", "clean", "heat", "cool")]
            yield from (one for one in options if done(self, one) is not None)
        for thing in sorted([*things, *filter(None, (here, held))]):
            yield Command("examine", thing)
        yield Command("inventory")
        yield Command("look")


class Done(NamedTuple):
    """What a command did: the household after it, and what is told."""

    household: Household
    text: str


def done(household: Household, command: Command) -> Done | None:
    """What `command` does here; None where it does nothing."""
    match command.verb:
        case "think":
            return Done(household, wording.THOUGHT)
        case "look":
            return Done(household, wording.look(household.at, household.receptacles))
        case "inventory":
            return Done(household, wording.inventory(household.held))
        case "examine":
            return _examined(household, command.thing)
        case "use":
            return _used(household, command.thing)
        case "go":
            if command.place == household.at or command.place not in household.receptacles:
                return None
            there = replace(household, at=command.place)
            return Done(there, there.seen(command.place))
    if not command.place or command.place != household.at:
        return None
    match command.verb:
        case "open" | "close":
            return _door(household, command)
        case "take":
            return _taken(household, command)
        case _:
            return _with_held(household, command)


def _door(household: Household, command: Command) -> Done | None:
    place = command.place
    opening = command.verb == "open"
    if kind_of(place) not in OPENABLE or (place in household.opened) == opening:
        return None
    after = replace(household, opened=household.opened ^ {place})
    return Done(
        after, wording.opens(place, after.seen(place)) if opening else wording.closes(place)
    )


def _taken(household: Household, command: Command) -> Done | None:
    thing, place = command.thing, command.place
    lies_here = household.where.get(thing) == place and household.is_open(place)
    if not lies_here or household.held or kind_of(thing) == LAMP:
        return None
    after = replace(household, where={**household.where, thing: HAND})
    return Done(after, wording.takes(thing, place))


def _with_held(household: Household, command: Command) -> Done | None:
    verb, thing, place = command
    if household.where.get(thing) != HAND:
        return None
    kind, there = kind_of(thing), kind_of(place)
    if verb == "put":
        if there not in PLACES_OF[kind] or not household.is_open(place):
            return None
        after = replace(household, where={**household.where, thing: place})
        return Done(after, wording.puts(thing, place))
    able, tools = _POSSIBLE[verb]
    if kind not in able or there not in tools:
        return None
    one = frozenset((thing,))
    match verb:
        case "clean":
            after = replace(household, clean=household.clean | one)
        case "heat":
            after = replace(household, hot=household.hot | one, cool=household.cool - one)
        case _:
            after = replace(household, cool=household.cool | one, hot=household.hot - one)
    return Done(after, wording.changes(verb, thing, place))


_POSSIBLE = {
    "clean": (CLEANABLE, SINKS),
    "heat": (HEATABLE, HEATERS),
    "cool": (COOLABLE, COOLERS),
}


def _reachable(household: Household, thing: str) -> bool:
    where = household.where.get(thing, "")
    return where == HAND or (bool(where) and where == household.at and household.is_open(where))


def _used(household: Household, thing: str) -> Done | None:
    if kind_of(thing) != LAMP or not _reachable(household, thing):
        return None
    after = replace(household, lit=household.lit ^ {thing})
    return Done(after, wording.switches(thing, on=thing in after.lit))


def _examined(household: Household, name: str) -> Done | None:
    if name == household.at and name:
        return Done(household, household.seen(name))
    if not _reachable(household, name):
        return None
    marks = [
        word
        for word, things in (
            ("hot", household.hot),
            ("cool", household.cool),
            ("clean", household.clean),
        )
        if name in things
    ]
    if kind_of(name) == LAMP:
        return Done(household, wording.lamp(name, on=name in household.lit))
    return Done(household, wording.examined(name, marks))


def reached(household: Household, goal: Goal) -> bool:
    """Whether the goal holds now.

    An object of the kind lies in or on a receptacle of the kind, clean, hot or cool where that was
    asked; two of them in or on the same one. In light: it is carried where a lamp is that is on.
    """
    if goal.type == "look_at_obj":
        lamps = (one for one in household.lit if household.where[one] == household.at)
        return kind_of(household.held) == goal.thing and any(lamps)
    count: dict[str, int] = {}
    for thing, place in household.where.items():
        right = kind_of(thing) == goal.thing and kind_of(place) == goal.place
        if right and (changed := _CHANGED.get(goal.type)):
            right = thing in getattr(household, changed)
        if right:
            count[place] = count.get(place, 0) + 1
    return max(count.values(), default=0) >= (2 if goal.type == "pick_two_obj" else 1)


_CHANGED: Mapping[str, Literal["clean", "hot", "cool"]] = {
    "pick_clean_then_place": "clean",
    "pick_heat_then_place": "hot",
    "pick_cool_then_place": "cool",
}

"""The commands that reach a goal: for one who knows where everything is, and for one who looks."""

from __future__ import annotations

import random

from .commands import Command, Verb
from .kinds import COOLERS, HEATERS, LAMP, PLACES_OF, SINKS, kind_of
from .world import Goal, GoalType, Household, done

_STATIONS: dict[GoalType, tuple[Verb, frozenset[str]]] = {
    "pick_clean_then_place": ("clean", SINKS),
    "pick_heat_then_place": ("heat", HEATERS),
    "pick_cool_then_place": ("cool", COOLERS),
}


def plan(household: Household, goal: Goal) -> tuple[Command, ...]:
    """Commands that lead from the start of a made task to its goal, things known."""
    return _carried_out(_Trip(household), goal)


def explored(household: Household, goal: Goal, rng: random.Random) -> tuple[Command, ...]:
    """The same for one who has to look: places that may hold the thing, in random order.

    What was seen on the way is remembered.
    """
    return _carried_out(_Search(household, rng), goal)


def _carried_out(trip: _Trip, goal: Goal) -> tuple[Command, ...]:
    if goal.type == "look_at_obj":
        trip.fetch(trip.found(goal.thing))
        lamp = trip.found(LAMP)
        trip.go(trip.household.where[lamp])
        trip.do(Command("use", lamp))
        return tuple(trip.commands)
    receptacles = trip.household.receptacles
    target = next(one for one in receptacles if kind_of(one) == goal.place)
    for _ in range(2 if goal.type == "pick_two_obj" else 1):
        thing = trip.found(goal.thing)
        trip.fetch(thing)
        if goal.type in _STATIONS:
            verb, tools = _STATIONS[goal.type]
            station = next(one for one in receptacles if kind_of(one) in tools)
            trip.go(station)
            trip.do(Command(verb, thing, station))
        trip.go(target)
        trip.uncover(target)
        trip.do(Command("put", thing, target))
    return tuple(trip.commands)


class _Trip:
    """The commands so far, and the household after them."""

    def __init__(self, household: Household) -> None:
        self.household = household
        self.commands: list[Command] = []
        self.fetched: set[str] = set()

    def do(self, command: Command) -> None:
        """Carry out a command, which must do something."""
        after = done(self.household, command)
        assert after is not None, f"{command} does nothing"
        self.household = after.household
        self.commands.append(command)

    def go(self, place: str) -> None:
        """Stand at `place`."""
        if self.household.at != place:
            self.do(Command("go", place=place))

    def uncover(self, place: str) -> None:
        """Open the door of `place`, where it has one that is closed."""
        if not self.household.is_open(place):
            self.do(Command("open", place=place))

    def found(self, kind: str) -> str:
        """A thing of `kind` that was not fetched yet."""
        things = (one for one in self.household.where if kind_of(one) == kind)
        return min(one for one in things if one not in self.fetched)

    def fetch(self, thing: str) -> None:
        """Take `thing` from where it lies."""
        self.fetched.add(thing)
        place = self.household.where[thing]
        self.go(place)
        self.uncover(place)
        self.do(Command("take", thing, place))


class _Search(_Trip):
    """A trip that only knows of things that lay in or on places it has seen."""

    def __init__(self, household: Household, rng: random.Random) -> None:
        super().__init__(household)
        self._order = rng.sample(household.receptacles, len(household.receptacles))
        self._seen: list[str] = []

    def do(self, command: Command) -> None:
        """Carry out a command, and look around."""
        super().do(command)
        here = self.household.at
        if here and self.household.is_open(here):
            self._seen += [one for one in self.household.inside(here) if one not in self._seen]

    def found(self, kind: str) -> str:
        """A thing of `kind` that was seen; looks in further places until one is."""
        while True:
            for thing in self._seen:
                if kind_of(thing) == kind and thing not in self.fetched:
                    return thing
            place = next(one for one in self._order if kind_of(one) in PLACES_OF[kind])
            self._order.remove(place)
            self.go(place)
            self.uncover(place)

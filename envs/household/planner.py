"""A planner that knows where everything is: the commands that reach a goal."""

from __future__ import annotations

from .commands import Command, Verb
from .kinds import COOLERS, HEATERS, LAMP, SINKS, kind_of
from .world import Goal, GoalType, Household, done

_STATIONS: dict[GoalType, tuple[Verb, frozenset[str]]] = {
    "pick_clean_then_place": ("clean", SINKS),
    "pick_heat_then_place": ("heat", HEATERS),
    "pick_cool_then_place": ("cool", COOLERS),
}


def plan(household: Household, goal: Goal) -> tuple[Command, ...]:
    """Commands that lead from the start of a made task to its goal."""
    trip = _Trip(household)
    things = sorted(one for one in household.where if kind_of(one) == goal.thing)
    if goal.type == "look_at_obj":
        trip.fetch(things[0])
        lamp = next(one for one in sorted(household.where) if kind_of(one) == LAMP)
        trip.go(household.where[lamp])
        trip.do(Command("use", lamp))
        return tuple(trip.commands)
    target = next(one for one in household.receptacles if kind_of(one) == goal.place)
    for thing in things[: 2 if goal.type == "pick_two_obj" else 1]:
        trip.fetch(thing)
        if goal.type in _STATIONS:
            verb, tools = _STATIONS[goal.type]
            station = next(one for one in household.receptacles if kind_of(one) in tools)
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

    def fetch(self, thing: str) -> None:
        """Take `thing` from where it lies."""
        place = self.household.where[thing]
        self.go(place)
        self.uncover(place)
        self.do(Command("take", thing, place))

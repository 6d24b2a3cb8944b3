"""Households and goals made by seed; the goals of training and evaluation have no overlap."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from agentrl.core.errors import DataError

from ..games.base import chosen_split
from . import wording
from .kinds import (
    CLEANABLE,
    COOLABLE,
    COOLERS,
    HEATABLE,
    HEATERS,
    LAMP,
    PLACES_OF,
    ROOMS,
    ROOMS_OF,
    SINKS,
)
from .world import Goal, GoalType, Household, reached

GOAL_TYPES: Final[tuple[GoalType, ...]] = (
    "pick_and_place",
    "look_at_obj",
    "pick_clean_then_place",
    "pick_heat_then_place",
    "pick_cool_then_place",
    "pick_two_obj",
)

_TEXTS: Mapping[GoalType, Sequence[str]] = {
    "pick_and_place": ("put a {thing} in {place}", "put some {thing} on {place}"),
    "look_at_obj": ("look at {thing} under the {place}", "examine the {thing} with the {place}"),
    "pick_clean_then_place": (
        "put a clean {thing} in {place}",
        "clean some {thing} and put it in {place}",
    ),
    "pick_heat_then_place": (
        "put a hot {thing} in {place}",
        "heat some {thing} and put it in {place}",
    ),
    "pick_cool_then_place": (
        "put a cool {thing} in {place}",
        "cool some {thing} and put it in {place}",
    ),
    "pick_two_obj": ("put two {thing} in {place}", "find two {thing} and put them in {place}"),
}
_ABLE: Mapping[GoalType, tuple[frozenset[str], frozenset[str]]] = {
    "pick_clean_then_place": (CLEANABLE, SINKS),
    "pick_heat_then_place": (HEATABLE, HEATERS),
    "pick_cool_then_place": (COOLABLE, COOLERS),
}
_ATTEMPTS_PER_TASK = 200


class Made(NamedTuple):
    """A made task: its id, the household, the goal and its wording."""

    id: str
    household: Household
    goal: Goal
    text: str

    def prompt(self) -> str:
        """The room and the task, as the policy reads them."""
        return f"{wording.middle(self.household.receptacles)}\n\n{wording.task(self.text)}"

    def data(self) -> dict[str, Any]:
        """Plain data that `from_data` reads."""
        return {
            "receptacles": list(self.household.receptacles),
            "objects": dict(self.household.where),
            "goal": list(self.goal),
            "text": self.text,
        }


def from_data(id_: str, data: Mapping[str, Any]) -> Made:
    """The task of `Made.data`."""
    household = Household(tuple(data["receptacles"]), dict(data["objects"]))
    return Made(id_, household, Goal(*data["goal"]), data["text"])


@lru_cache(maxsize=32)
def made_tasks(split: str, amount: int, types: tuple[GoalType, ...]) -> tuple[Made, ...]:
    """The first `amount` tasks of `split`, whose types take turns.

    A goal (type, object, receptacle) is in one split only. No two tasks of a split show the same
    room with the same goal.

    Raises:
        DataError: too few tasks turn up.
    """
    found: dict[str, Made] = {}
    number = 0
    while len(found) < amount:
        if number > _ATTEMPTS_PER_TASK * (amount + 10):
            raise DataError(
                f"only {len(found)} of {amount} household tasks turned up: ask for less"
            )
        wanted = types[len(found) % len(types)]
        made = make_task(number, wanted)
        number += 1
        if made is not None and chosen_split("/".join(made.goal)) == split:
            found.setdefault(made.prompt(), made._replace(id=f"{split}-{made.id}"))
    return tuple(found.values())


def make_task(seed: int, goal_type: GoalType) -> Made | None:
    """The task of this seed and type; None where the room drawn does not allow it."""
    rng = random.Random(f"household/{goal_type}/{seed}")
    room = rng.choice(sorted(ROOMS))
    receptacles = [
        f"{kind} {number}"
        for kind, (fewest, most) in sorted(ROOMS[room].items())
        for number in range(1, rng.randint(fewest, most) + 1)
    ]
    goal = _goal(rng, goal_type, room, {one.rpartition(" ")[0] for one in receptacles})
    if goal is None:
        return None
    household = Household(tuple(receptacles), _placed(rng, room, receptacles, goal))
    if reached(household, goal) or not _possible(household, goal):
        return None
    text = rng.choice(_TEXTS[goal_type]).format(thing=goal.thing, place=goal.place)
    return Made(f"{goal_type}-{seed}", household, goal, text)


def _goal(rng: random.Random, goal_type: GoalType, room: str, there: set[str]) -> Goal | None:
    """A goal that the room's receptacles allow."""
    things = [one for one, rooms in ROOMS_OF.items() if room in rooms and one != LAMP]
    if goal_type == "look_at_obj":
        if not PLACES_OF[LAMP] & there or room not in ROOMS_OF[LAMP]:
            return None
        return Goal(goal_type, rng.choice(things), LAMP)
    tools: frozenset[str] = frozenset()
    if goal_type in _ABLE:
        able, tools = _ABLE[goal_type]
        things = [one for one in things if one in able]
        if not things or not tools & there:
            return None
    thing = rng.choice(things)
    places = sorted(PLACES_OF[thing] & there - tools)
    return Goal(goal_type, thing, rng.choice(places)) if places else None


def _placed(
    rng: random.Random, room: str, receptacles: Sequence[str], goal: Goal
) -> dict[str, str]:
    """Objects on receptacles that they fit: some of each kind, of the goal's kind enough."""
    amounts = {
        kind: rng.choice((0, 0, 1, 1, 2, 3))
        for kind, rooms in sorted(ROOMS_OF.items())
        if room in rooms
    }
    amounts[goal.thing] = max(amounts[goal.thing], 2 if goal.type == "pick_two_obj" else 1)
    if LAMP in amounts:
        amounts[LAMP] = 1 if goal.type == "look_at_obj" else min(amounts[LAMP], 1)
    where: dict[str, str] = {}
    for kind, amount in amounts.items():
        fitting = [one for one in receptacles if one.rpartition(" ")[0] in PLACES_OF[kind]]
        if kind == goal.thing and goal.type != "look_at_obj":
            # What lies there already could be taken for done.
            fitting = [one for one in fitting if one.rpartition(" ")[0] != goal.place]
        for number in range(1, amount + 1):
            if fitting:
                where[f"{kind} {number}"] = rng.choice(fitting)
    return where


def _possible(household: Household, goal: Goal) -> bool:
    kinds = [thing.rpartition(" ")[0] for thing in household.where]
    enough = kinds.count(goal.thing) >= (2 if goal.type == "pick_two_obj" else 1)
    return enough and (goal.type != "look_at_obj" or LAMP in kinds)

"""What the household says, in the words of ALFWorld's games as ReAct's prompts show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .kinds import kind_of

NOTHING = "Nothing happens."
THOUGHT = "OK."


def listed(names: Iterable[str]) -> str:
    """`a cup 2, a cup 1, and a mug 1`: by kind, then by falling number; or `nothing`."""
    ordered = sorted(names, key=lambda name: (kind_of(name), -int(name.rpartition(" ")[2])))
    named = [f"a {name}" for name in ordered]
    if len(named) > 1:
        named[-1] = f"and {named[-1]}"
    return ", ".join(named) or "nothing"


def middle(receptacles: Iterable[str]) -> str:
    """The room from its middle."""
    return (
        "You are in the middle of a room. Looking quickly around you, you see "
        f"{listed(receptacles)}."
    )


def task(goal: str) -> str:
    """The goal, under the room."""
    return f"Your task is to: {goal}."


def contents(place: str, things: Iterable[str], *, has_door: bool) -> str:
    """What is in or on a receptacle that is open or has no door."""
    if has_door:
        return f"The {place} is open. In it, you see {listed(things)}."
    return f"On the {place}, you see {listed(things)}."


def closed(place: str) -> str:
    """A closed door."""
    return f"The {place} is closed."


def opens(place: str, seen: str) -> str:
    """A door that was opened, and what is behind it."""
    return f"You open the {place}. {seen}"


def closes(place: str) -> str:
    """A door that was closed."""
    return f"You close the {place}."


def takes(thing: str, place: str) -> str:
    """An object that was taken."""
    return f"You pick up the {thing} from the {place}."


def puts(thing: str, place: str) -> str:
    """An object that was put down."""
    return f"You put the {thing} in/on the {place}."


def changes(verb: str, thing: str, place: str) -> str:
    """An object that was cleaned, heated or cooled."""
    return f"You {verb} the {thing} using the {place}."


def switches(thing: str, *, on: bool) -> str:
    """A lamp that was switched."""
    return f"You turn {'on' if on else 'off'} the {thing}."


def lamp(thing: str, *, on: bool) -> str:
    """A lamp that is examined."""
    return f"This {thing} is {'on' if on else 'off'}."


def examined(thing: str, marks: Sequence[str]) -> str:
    """An object that is examined; `marks` are what was done to it."""
    if not marks:
        return f"There's nothing special about {thing}."
    said = "cold" if marks == ["cool"] else " and ".join(marks)
    return f"This is a {said} {thing}."


def inventory(held: str) -> str:
    """What is carried."""
    return f"You are carrying: a {held}." if held else "You are not carrying anything."


def look(at: str, receptacles: Iterable[str]) -> str:
    """The room from where one stands."""
    return f"You are facing the {at}. Next to it, you see nothing." if at else middle(receptacles)

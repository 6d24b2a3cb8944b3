"""What pydantic found wrong in a recipe, as sentences that name the setting and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from agentrl.core.errors import nearest
from agentrl.core.settings import Settings
from agentrl.recipe.source import Place, Source

_LIKE_A_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_LIKE_A_SWITCH = {"yes", "no", "on", "off"}


class Problem(NamedTuple):
    """What is wrong at `place`; `message` is without the file and line."""

    place: Place
    message: str


def problems_of(error: ValidationError, root: type[Settings], source: Source) -> list[Problem]:
    """One problem for each of `error`'s; `root` is the class that was validated."""
    return [_problem(details, root, source) for details in error.errors(include_url=False)]


class _Spot(NamedTuple):
    """A place in the schema: its keys and the class that holds the last of them."""

    place: Place
    holder: type[Settings]
    alternatives: tuple[type[Settings], ...]


def _problem(details: ErrorDetails, root: type[Settings], source: Source) -> Problem:
    spot = _locate(details["loc"], root)
    name = ".".join(spot.place)
    match details["type"]:
        case "extra_forbidden":
            return Problem(spot.place, _unknown(name, spot, root))
        case "missing":
            return Problem(spot.place, f"{name}: field required.")
        case "union_tag_not_found":
            listed = ", ".join(_types(spot.alternatives))
            return Problem(spot.place, f"{name}.type: field required. Known: {listed}.")
        case "union_tag_invalid":
            known = _types(spot.alternatives)
            found = details["input"].get("type")
            said = f"{name}.type: no {_kind(spot.place)} is named {found!r}."
            close = nearest(str(found), known)
            return Problem((*spot.place, "type"), f"{said}{close} Known: {', '.join(known)}.")
        case "model_type" | "model_attributes_type" | "dict_type":
            got = _shown(details["input"])
            return Problem(spot.place, f"{name}: input should be a mapping of settings, got {got}.")
        case "value_error":
            said = details["msg"].removeprefix("Value error, ").rstrip(".")
            return Problem(spot.place, f"{name}: {said}.")
        case _:
            return Problem(spot.place, _wrong_value(name, details, source.written.get(spot.place)))


def _wrong_value(name: str, details: ErrorDetails, written: str | None) -> str:
    given, said = details["input"], details["msg"].replace("a valid array", "a list")
    message = f"{name}: {said[0].lower()}{said[1:]}, got {_shown(given)}."
    if details["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
        message += nearest(str(given), choices)
    if isinstance(given, str) and _LIKE_A_NUMBER.fullmatch(given):
        if details["type"].startswith("int"):
            message += f" Write {float(given):.0f}."
        else:
            mantissa, _, exponent = given.lower().partition("e")
            dotted = mantissa if "." in mantissa else f"{mantissa}.0"
            sign = exponent if exponent[0] in "+-" else f"+{exponent}"
            message += f" YAML reads {given} as text; write {dotted}e{sign}."
    if isinstance(given, bool) and (written or "").lower() in _LIKE_A_SWITCH:
        message += f" YAML reads {written} as {str(given).lower()}; quote it."
    return message


def _kind(place: Place) -> str:
    """What stands at `place`, in the singular."""
    return place[-2].removesuffix("s") if place[-1].isdigit() else place[-1]


def _unknown(name: str, spot: _Spot, root: type[Settings]) -> str:
    key, known = spot.place[-1], list(spot.holder.model_fields)
    hint = nearest(key, known)
    others = [cls for cls in spot.alternatives if key in cls.model_fields]
    if not hint and others:
        types = " and ".join(repr(_type_name(cls)) for cls in others)
        hint = f" It belongs to type {types}."
    elsewhere = [".".join(place) for place in all_places(root) if place[-1] == key]
    if not hint and elsewhere:
        hint = f" Did you mean {' or '.join(map(repr, elsewhere))}?"
    return f"unknown setting {name!r}.{hint} Known here: {', '.join(known)}."


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- the schema as a tree -------------------------------------------------------------------------


def members(field: FieldInfo) -> tuple[type[Settings], ...]:
    """The classes of settings that a field or its list may hold: none, one, or a union's."""
    annotation: Any = field.annotation
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    union = get_origin(annotation) in (Union, UnionType)
    found = get_args(annotation) if union else (annotation,)
    return tuple(cls for cls in found if isinstance(cls, type) and issubclass(cls, Settings))


def all_places(root: type[Settings], place: Place = ()) -> Iterator[Place]:
    """Every setting of `root` and below, sections before their settings; types' may repeat."""
    seen: set[Place] = set()
    for key, field in root.model_fields.items():
        yield (*place, key)
        for cls in members(field):
            for below in all_places(cls, (*place, key)):
                if below not in seen:
                    seen.add(below)
                    yield below


def _locate(loc: tuple[int | str, ...], root: type[Settings]) -> _Spot:
    """Follow pydantic's location, which also names the chosen type of a union."""
    place: Place = ()
    holder = root
    inside: tuple[type[Settings], ...] = (root,)
    alternatives: tuple[type[Settings], ...] = ()
    for part in loc:
        if isinstance(part, int):  # an item of a list: of what the list holds
            place = (*place, str(part))
            continue
        chosen = [cls for cls in inside if _type_name(cls) == part]
        if len(inside) > 1 and chosen:
            alternatives, inside = inside, tuple(chosen)
            continue
        holders = inside
        holder = holders[0] if holders else holder
        place = (*place, str(part))
        field = holder.model_fields.get(str(part)) if holders else None
        inside = members(field) if field else ()
        if field:
            alternatives = inside if len(inside) > 1 else ()
    return _Spot(place, holder, alternatives)


def _type_name(cls: type[Settings]) -> str | None:
    field = cls.model_fields.get("type")
    return None if field is None else str(field.default)


def _types(classes: tuple[type[Settings], ...]) -> list[str]:
    return [str(_type_name(cls)) for cls in classes]

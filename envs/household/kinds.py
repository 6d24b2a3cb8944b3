"""Kinds of rooms, receptacles and objects: what stands where, what fits where, what can be done.

Names and possibilities follow ALFRED's (arXiv:1912.01734) and ALFWorld's (arXiv:2010.03768).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ROOMS: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = {
    "kitchen": {
        "cabinet": (3, 8),
        "coffeemachine": (1, 1),
        "countertop": (1, 3),
        "diningtable": (0, 1),
        "drawer": (2, 5),
        "fridge": (1, 1),
        "garbagecan": (1, 1),
        "microwave": (1, 1),
        "shelf": (0, 3),
        "sidetable": (0, 1),
        "sinkbasin": (1, 1),
        "stoveburner": (2, 4),
        "toaster": (1, 1),
    },
    "bathroom": {
        "bathtubbasin": (0, 1),
        "cabinet": (1, 4),
        "countertop": (1, 2),
        "garbagecan": (1, 1),
        "handtowelholder": (1, 2),
        "shelf": (0, 3),
        "sinkbasin": (1, 2),
        "toilet": (1, 1),
        "toiletpaperhanger": (1, 1),
        "towelholder": (0, 1),
    },
    "bedroom": {
        "armchair": (0, 1),
        "bed": (1, 1),
        "desk": (1, 2),
        "drawer": (2, 6),
        "dresser": (0, 1),
        "garbagecan": (1, 1),
        "laundryhamper": (0, 1),
        "safe": (0, 1),
        "shelf": (1, 4),
        "sidetable": (1, 2),
    },
    "livingroom": {
        "armchair": (1, 2),
        "cabinet": (0, 2),
        "coffeetable": (1, 1),
        "diningtable": (0, 1),
        "drawer": (1, 4),
        "dresser": (0, 1),
        "garbagecan": (1, 1),
        "ottoman": (0, 1),
        "safe": (0, 1),
        "shelf": (0, 3),
        "sidetable": (1, 2),
        "sofa": (1, 2),
    },
}
"""Room -> kind of receptacle -> the fewest and the most that stand in it."""

OPENABLE: Final = frozenset(("cabinet", "drawer", "fridge", "microwave", "safe"))
"""Receptacles with a door, closed at first."""

SINKS: Final = frozenset(("sinkbasin",))
HEATERS: Final = frozenset(("microwave",))
COOLERS: Final = frozenset(("fridge",))
"""Receptacles that objects are cleaned, heated and cooled with."""

LAMP: Final = "desklamp"

_TABLES = "countertop diningtable coffeetable sidetable desk dresser shelf"
_SEATS = "armchair sofa bed ottoman"
_FOOD = "countertop diningtable fridge garbagecan microwave sidetable sinkbasin"
_DISH = "cabinet coffeemachine countertop diningtable fridge microwave shelf sidetable sinkbasin"
_CUTLERY = "countertop diningtable drawer sidetable sinkbasin"
_POT = "cabinet countertop diningtable fridge sidetable sinkbasin stoveburner"
_SMALL = f"{_TABLES} {_SEATS} drawer safe"
_BATH = "bathtubbasin cabinet countertop garbagecan shelf sinkbasin toilet"

_KITCHEN, _BATHROOM, _LIVING = ("kitchen",), ("bathroom",), ("bedroom", "livingroom")

_OBJECTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "alarmclock": (("bedroom",), _TABLES),
    "apple": (_KITCHEN, _FOOD),
    "book": (_LIVING, f"{_SMALL} cabinet"),
    "bowl": (_KITCHEN, _DISH),
    "bread": (_KITCHEN, _FOOD),
    "butterknife": (_KITCHEN, _CUTLERY),
    "candle": (_BATHROOM, _BATH),
    "cd": (("bedroom",), f"{_TABLES} drawer garbagecan safe"),
    "cellphone": (_LIVING, _SMALL),
    "cloth": (_BATHROOM, f"{_BATH} drawer"),
    "creditcard": (_LIVING, _SMALL),
    "cup": (_KITCHEN, _DISH),
    "desklamp": (_LIVING, "coffeetable desk diningtable dresser sidetable"),
    "dishsponge": (_KITCHEN, f"{_CUTLERY} cabinet garbagecan"),
    "egg": (_KITCHEN, _FOOD),
    "fork": (_KITCHEN, _CUTLERY),
    "handtowel": (_BATHROOM, "bathtubbasin cabinet countertop garbagecan handtowelholder toilet"),
    "kettle": (_KITCHEN, "cabinet countertop diningtable sidetable sinkbasin stoveburner"),
    "keychain": (_LIVING, _SMALL),
    "knife": (_KITCHEN, _CUTLERY),
    "ladle": (_KITCHEN, _CUTLERY),
    "laptop": (_LIVING, "armchair bed coffeetable desk diningtable dresser ottoman sofa"),
    "lettuce": (_KITCHEN, _FOOD),
    "mug": (_KITCHEN, _DISH),
    "newspaper": (("livingroom",), f"{_SMALL} garbagecan"),
    "pan": (_KITCHEN, _POT),
    "pen": (_LIVING, f"{_TABLES} drawer garbagecan"),
    "pencil": (_LIVING, f"{_TABLES} drawer garbagecan"),
    "peppershaker": (_KITCHEN, "cabinet countertop diningtable drawer shelf sidetable"),
    "pillow": (_LIVING, _SEATS),
    "plate": (_KITCHEN, _DISH.replace("coffeemachine ", "")),
    "pot": (_KITCHEN, _POT),
    "potato": (_KITCHEN, _FOOD),
    "remotecontrol": (("livingroom",), _SMALL),
    "saltshaker": (_KITCHEN, "cabinet countertop diningtable drawer shelf sidetable"),
    "soapbar": (_BATHROOM, _BATH),
    "soapbottle": (_BATHROOM, _BATH),
    "spatula": (_KITCHEN, _CUTLERY),
    "spoon": (_KITCHEN, _CUTLERY),
    "spraybottle": (_BATHROOM, _BATH),
    "statue": (_LIVING, f"{_TABLES} safe"),
    "tissuebox": (_LIVING, f"{_TABLES} drawer"),
    "toiletpaper": (_BATHROOM, f"{_BATH} toiletpaperhanger"),
    "tomato": (_KITCHEN, _FOOD),
    "vase": (("livingroom",), f"{_TABLES} cabinet safe"),
    "watch": (_LIVING, _SMALL),
    "winebottle": (_KITCHEN, "cabinet countertop diningtable fridge garbagecan"),
}

ROOMS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    kind: rooms for kind, (rooms, _) in _OBJECTS.items()
}
"""Kind of object -> the rooms that it is found in."""

PLACES_OF: Final[Mapping[str, frozenset[str]]] = {
    kind: frozenset(places.split()) for kind, (_, places) in _OBJECTS.items()
}
"""Kind of object -> the kinds of receptacles that it fits into or onto."""

_CLEANABLE = (
    "apple bowl butterknife cloth cup dishsponge egg fork kettle knife ladle lettuce mug pan plate "
    "pot potato soapbar spatula spoon tomato"
)
_HEATABLE = "apple bread cup egg mug plate potato tomato"
_COOLABLE = "apple bowl bread cup egg lettuce mug pan plate pot potato tomato winebottle"
CLEANABLE: Final = frozenset(_CLEANABLE.split())
HEATABLE: Final = frozenset(_HEATABLE.split())
COOLABLE: Final = frozenset(_COOLABLE.split())
"""Objects that can be cleaned, heated and cooled."""


def kind_of(name: str) -> str:
    """The kind of a thing's name: "cabinet" of "cabinet 3"."""
    return name.rpartition(" ")[0]

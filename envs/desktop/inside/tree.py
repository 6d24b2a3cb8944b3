"""The accessibility tree, read from the bus itself: all questions of a level are asked at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

from gi.repository import Gio, GLib

ACCESSIBLE = "org.a11y.atspi.Accessible"
COMPONENT = "org.a11y.atspi.Component"
TEXT = "org.a11y.atspi.Text"
VALUE = "org.a11y.atspi.Value"
PROPERTIES = "org.freedesktop.DBus.Properties"
ROOT = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")
NULL = "/org/a11y/atspi/null"
# Bits of the state set (atspi-constants.h).
STATES = {
    1: "active", 4: "checked", 8: "enabled", 9: "expandable", 10: "expanded", 7: "editable",
    12: "focused", 20: "pressed", 23: "selected", 25: "showing", 30: "visible", 24: "sensitive",
    41: "checkable", 32: "indeterminate",
}  # fmt: skip
TEXT_ROLES = {
    "text", "entry", "password text", "terminal", "paragraph", "label", "document text",
    "editbar", "static", "spin button",
}  # fmt: skip
VALUE_ROLES = {"slider", "spin button", "progress bar", "level bar", "dial"}
MAX_CHILDREN = 200
MAX_TEXT = 4000


Where: TypeAlias = tuple[str, str]
Node: TypeAlias = dict[str, Any]
Hung: TypeAlias = tuple[Node, Where, int]
"""A node that is to be read: its parent, its place on the bus and its depth."""


class Bus:
    """A connection to the accessibility bus."""

    def __init__(self, timeout: float = 1.0) -> None:
        self._milliseconds = int(timeout * 1000)
        session = Gio.DBusConnection.new_for_address_sync(
            os.environ["DBUS_SESSION_BUS_ADDRESS"],
            Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
            | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
            None,
            None,
        )
        found = session.call_sync(
            "org.a11y.Bus", "/org/a11y/bus", "org.a11y.Bus", "GetAddress", None, None,
            Gio.DBusCallFlags.NONE, 10_000, None,
        )  # fmt: skip
        session.call_sync(
            "org.a11y.Bus", "/org/a11y/bus", PROPERTIES, "Set",
            GLib.Variant("(ssv)", ("org.a11y.Status", "IsEnabled", GLib.Variant("b", True))),
            None, Gio.DBusCallFlags.NONE, 10_000, None,
        )  # fmt: skip
        self._bus = Gio.DBusConnection.new_for_address_sync(
            found.unpack()[0],
            Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
            | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
            None,
            None,
        )

    def ask(self, questions: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to `[(name, path, interface, method, arguments)]`; None where none came."""
        answers: list[Any] = [None] * len(questions)
        open_ = [len(questions)]

        def answered(bus: Any, result: Any, number: int) -> None:
            open_[0] -= 1
            try:
                answers[number] = bus.call_finish(result).unpack()
            except GLib.Error:
                return

        for number, (name, path, interface, method, arguments) in enumerate(questions):
            self._bus.call(
                name, path, interface, method, arguments, None,
                Gio.DBusCallFlags.NO_AUTO_START, self._milliseconds, None, answered, number,
            )  # fmt: skip
        context = GLib.MainContext.default()
        while open_[0]:
            context.iteration(True)
        return answers


def read(bus: Bus, max_nodes: int) -> tuple[list[Node], bool]:
    """The showing nodes in depth-first order, and whether all are there.

    Each is `{depth, role, name, text, value, states, x, y, width, height}`.
    """
    (found,) = bus.ask([(*ROOT, ACCESSIBLE, "GetChildren", None)])
    applications = [one for one in (found[0] if found else []) if one[1] != NULL]
    top: Node = {"children": []}
    hung: list[Hung] = [(top, one, 0) for one in applications]
    count, whole = 0, True
    # Chromium hangs its dialogs into the tree twice, under their window and as windows.
    met: set[Where] = set()
    while hung and count < max_nodes:
        fresh = []
        for one in hung:
            if one[1] not in met:
                met.add(one[1])
                fresh.append(one)
        level, cut = _visit(bus, fresh, max_nodes - count)
        whole = whole and not cut
        count += len(level)
        hung = [
            (node, child, node["depth"] + 1)
            for node in level
            for child in node.pop("_children")[:MAX_CHILDREN]
            if child[1] != NULL
        ]
    return _flat(top), whole and not hung


def _visit(bus: Bus, level: list[Hung], room: int) -> tuple[list[Node], bool]:
    """Ask for every node of a level; returns those that show, hung into their parents."""
    states = bus.ask([(*where, ACCESSIBLE, "GetState", None) for _, where, _ in level])
    shown = [
        (parent, where, depth, _states(state))
        for (parent, where, depth), state in zip(level, states, strict=True)
        if state is not None and (depth == 0 or "showing" in _states(state))
    ]
    cut = len(shown) > room
    shown = shown[:room]
    questions = []
    for _, where, _, _ in shown:
        name = GLib.Variant("(ss)", (ACCESSIBLE, "Name"))
        questions += [
            (*where, ACCESSIBLE, "GetRoleName", None),
            (*where, PROPERTIES, "Get", name),
            (*where, ACCESSIBLE, "GetChildren", None),
            (*where, COMPONENT, "GetExtents", GLib.Variant("(u)", (0,))),
        ]
    answers = bus.ask(questions)
    nodes = []
    for number, (parent, where, depth, found) in enumerate(shown):
        role, name, children, extents = answers[4 * number : 4 * number + 4]
        if role is None:
            continue
        x, y, width, height = extents[0] if extents else (0, 0, 0, 0)
        node = {
            "depth": depth, "role": role[0], "name": name[0] if name else "", "text": "",
            "value": None, "states": found, "x": x, "y": y, "width": width, "height": height,
            "children": [], "_children": children[0] if children else [], "_where": where,
        }  # fmt: skip
        parent["children"].append(node)
        nodes.append(node)
    _fill(bus, nodes)
    return nodes, cut


def _fill(bus: Bus, nodes: list[Node]) -> None:
    """Add the texts and the values."""
    texts = [one for one in nodes if one["role"] in TEXT_ROLES or "editable" in one["states"]]
    values = [one for one in nodes if one["role"] in VALUE_ROLES]
    current = GLib.Variant("(ss)", (VALUE, "CurrentValue"))
    length = GLib.Variant("(ss)", (TEXT, "CharacterCount"))
    counts = bus.ask([(*one["_where"], PROPERTIES, "Get", length) for one in texts])
    asked = []
    for node, count in zip(texts, counts, strict=True):
        characters = count[0] if count else 0
        if not characters:
            continue
        # Of a long text the end, as a terminal's reader wants it.
        start = max(0, characters - MAX_TEXT) if node["role"] == "terminal" else 0
        end = min(characters, start + MAX_TEXT)
        asked.append((node, GLib.Variant("(ii)", (start, end))))
    answers = bus.ask([(*node["_where"], TEXT, "GetText", span) for node, span in asked])
    for (node, _), answer in zip(asked, answers, strict=True):
        node["text"] = answer[0] if answer else ""
    answers = bus.ask([(*one["_where"], PROPERTIES, "Get", current) for one in values])
    for node, answer in zip(values, answers, strict=True):
        node["value"] = answer[0] if answer else None
    for node in nodes:
        del node["_where"]


def _states(answer: Any) -> list[str]:
    low, high = answer[0][0], answer[0][1]
    bits = low | high << 32
    return [name for bit, name in sorted(STATES.items()) if bits >> bit & 1]


def _flat(node: Node) -> list[Node]:
    found: list[Node] = []
    for child in node["children"]:
        found.append({key: value for key, value in child.items() if key != "children"})
        found += _flat(child)
    return found

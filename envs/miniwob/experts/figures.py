"""Experts of the pages with figures: shapes to find, to count, to complete and to drag."""

from __future__ import annotations

import re

from ..view import Node
from .base import Expert, LostError, View, click, drag, first
from .clicks import submit

_SHAPES = {"circle": "circle", "rect": "rectangle", "polygon": "triangle"}
_PLURALS = {"circles": "circle", "rectangles": "rect", "triangles": "polygon"}


def _figures(view: View) -> list[Node]:
    return [n for n in view.all() if n.tag in ("text", *_SHAPES) and n.id != "shape-container"]


def _words(node: Node) -> set[str]:
    """Every word by which a task can mean the figure."""
    if node.tag == "text":
        size = float(node.looks["font-size"].removesuffix("px"))
        kind = {"digit" if node.text.isdigit() else "letter", node.text}
    else:
        kind = {"shape", _SHAPES[node.tag]}
        size = _size(node)
    return {node.looks["fill"], "large" if size > 15 else "small", "item", *kind}


def _size(node: Node) -> float:
    if node.tag == "circle":
        return 2 * float(node.looks["r"])
    if node.tag == "rect":
        return float(node.looks["width"])
    xs = [x for x, _ in _points(node)]
    return max(xs) - min(xs)


def _points(node: Node) -> list[tuple[float, float]]:
    numbers = list(map(float, re.findall(r"-?[\d.]+", node.looks["points"])))
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def shape(view: View) -> str:
    """A figure by its size, colour and kind."""
    wanted = view.task.removeprefix("Click on a ").split(" ")
    return click(first((n for n in _figures(view) if set(wanted) <= _words(n)), view.task))


def count(view: View) -> str:
    """How many figures are meant."""
    match = re.search(r"How many (.*)s are there", view.task)
    wanted = set(match[1].split(" ")) if match else set()
    found = sum(wanted <= _words(node) for node in _figures(view))
    return click(view.one(tag="button", text=str(found)))


def identify(view: View) -> str:
    """What the only figure is."""
    node = _figures(view)[0]
    if node.tag == "text":
        name = "Number" if node.text.isdigit() else "Letter"
    else:
        name = _SHAPES[node.tag].capitalize()
    return click(view.one(tag="button", text=name))


def grid(view: View) -> str:
    """A point of a grid by its coordinates."""
    match = re.search(r"(\(-?\d,-?\d\))", view.task)
    return click(view.by_id(match[1] if match else ""))


def drag_box(view: View) -> str:
    """The small box into the large one."""
    if view.turn:
        return click(submit(view))
    return drag(view.by_id("draggableSmall"), view.by_id("draggableLarge"))


_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def drag_one(view: View) -> str:
    """A figure some way in a direction, then submit."""
    if view.turn:
        return click(submit(view))
    match = re.search(r"(left|right|up|down)", view.task)
    x, y = _STEPS[match[1] if match else ""]
    node = first((n for n in view.nodes if n.tag in ("circle", "rect", "polygon")), "figure")
    return drag(node, (node.x + 25 * x, node.y + 25 * y))


def drag_into(view: View) -> str:
    """Every figure of a kind into the box, then submit."""
    match = re.search(r"Drag all (\w+) into", view.task)
    tag = _PLURALS[match[1] if match else ""]
    box = view.by_id("shape-container")
    for node in _figures(view):
        if node.tag == tag and not _within(node, box):
            return drag(node, (box.x, box.y))
    return click(submit(view))


def _within(node: Node, box: Node) -> bool:
    width, height = float(box.looks["width"]), float(box.looks["height"])
    return abs(node.x - box.x) < width / 2 - 5 and abs(node.y - box.y) < height / 2 - 5


def drag_apart(view: View) -> str:
    """Figures of a kind into the left box, the others into the right one."""
    match = re.search(r"Drag all (\w+)(?: shapes)? into the left", view.task)
    meant = match[1] if match else ""
    boxes = [node for node in view.nodes if node.id == "shape-container"]
    for node in _figures(view):
        box = boxes[0] if meant in (node.looks["fill"], _SHAPES[node.tag] + "s") else boxes[1]
        if not _within(node, box):
            return drag(node, (box.x, box.y))
    return click(submit(view))


def _entries(view: View) -> list[Node]:
    return [node for node in view.all(tag="div") if node.text and node.y > 50]


def sort_numbers(view: View) -> str:
    """The numbers of a list in order: each is dragged to its place, from the top on."""
    items = [node for node in _entries(view) if re.fullmatch(r"-?\d+", node.text)]
    wanted = sorted(items, key=lambda one: int(one.text))
    for here, there in zip(items, wanted, strict=True):
        if here.text != there.text:
            return drag(there, (here.x, here.y - 10))
    return click(submit(view))


def drag_item(view: View) -> str:
    """An item of a list to a place."""
    match = re.search(r"Drag (\S+) (?:to the (\d|top|bottom)|(up|down) by one)", view.task)
    if match is None:
        raise LostError("the task names no place")
    items = _entries(view)
    item = first((one for one in items if one.text == match[1]), match[1])
    if match[2]:
        places = {"top": 0, "bottom": len(items) - 1}
        target = items[places[match[2]] if match[2] in places else int(match[2]) - 1]
    else:
        target = items[items.index(item) + (1 if match[3] == "down" else -1)]
    return drag(item, (target.x, target.y + (8 if target.y > item.y else -8)))


def highlight(view: View) -> str:
    """A paragraph's text, marked from the margin above it to the one below."""
    if view.turn:
        return click(submit(view))
    match = re.search(r"the (\d)\w\w paragraph", view.task)
    text = view.all(tag="p")[int(match[1]) - 1] if match else view.by_id("randomText")
    reach = round(5.5 * _lines(text.text) + 4)
    return f"drag((2, {text.y - reach}), (158, {text.y + reach}))"


_NARROW, _WIDE = "fijlrt.,I ", "mw"


def _lines(text: str) -> int:
    """Lines of a text of 10 pixels in a column of 136."""
    lines, used = 1, 0.0
    for word in text.split():
        width = sum(2.8 if one in _NARROW else 7.5 if one in _WIDE else 5.4 for one in word)
        if used and used + 2.8 + width > 136:
            lines, used = lines + 1, width
        else:
            used += (2.8 if used else 0.0) + width
    return lines


EXPERTS: dict[str, Expert] = {
    "click-shape": shape,
    "count-shape": count,
    "drag-box": drag_box,
    "drag-circle": drag_one,
    "drag-items": drag_item,
    "drag-shapes": drag_into,
    "drag-shapes-2": drag_apart,
    "drag-single-shape": drag_one,
    "drag-sort-numbers": sort_numbers,
    "grid-coordinate": grid,
    "highlight-text": highlight,
    "highlight-text-2": highlight,
    "identify-shape": identify,
}

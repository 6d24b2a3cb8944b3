"""Experts of the pages on which buttons, boxes, links, tabs and menus are clicked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..view import Node
from .base import Expert, LostError, View, click, click_xy, filled, first, select

_SYNONYMS = """
big large huge enormous gigantic / small tiny little mini petite / red scarlet crimson vermillion /
happy cheerful joyful gleeful delighted / sad unhappy sorrowful miserable tragic /
angry mad furious irritated / evil wicked immoral sinful corrupt depraved /
wrong incorrect mistaken erroneous / real genuine actual / strange odd peculiar unusual weird /
stop cease halt end finish / scared terrified panicked fearful frightened afraid /
quiet calm peaceful serene mild / old aged archaic / love like adore favor /
kill murder assassinate / keep retain preserve sustain maintain / hide conceal camouflage /
hate despise loathe detest dislike / funny humorous amusing comical laughable /
fat fleshy plump chubby / stupid dumb dull unwise / delicious savory delectable appetizing /
cut slice carve chop / brave courageous fearless / begin start initiate launch /
answer reply response / television televisions TV TVs / house home houses homes /
fire flame fires flames / pig pork swine / rabbit rabbits bunny bunnies /
car cars automobile automobiles vehicle vehicles / water
"""
_ALIKE = [set(line.split()) for line in _SYNONYMS.split("/")]

_ICONS = {
    "Save": "ui-icon-disk",
    "Prev": "ui-icon-seek-start",
    "Stop": "ui-icon-stop",
    "Play": "ui-icon-play",
    "Next": "ui-icon-seek-end",
    "Zoom In": "ui-icon-zoomin",
    "Zoom Out": "ui-icon-zoomout",
}


def quoted(task: str) -> str:
    """What the task has in double quotes."""
    match = re.search(r'"(.*)"', task)
    if match is None:
        raise LostError("the task quotes nothing")
    return match[1]


def submit(view: View) -> Node:
    """The button that ends the task."""
    return first((one for one in view.all(tag="button") if one.text == "Submit"), "submit button")


def button_named(view: View) -> str:
    """A button by its quoted name."""
    return click(view.one(tag="button", text=quoted(view.task)))


def button_one(view: View) -> str:
    """`Click button ONE.`, or the only button."""
    match = re.search(r"button (ONE|TWO)", view.task)
    return click(view.one(tag="button", text=match[1]) if match else view.one(tag="button"))


def button_sequence(view: View) -> str:
    """ONE, then TWO."""
    return click(view.one(tag="button", text="ONE" if view.turn == 0 else "TWO"))


def button_delay(view: View) -> str:
    """ONE, the seconds of the task, then TWO."""
    match = re.search(r"wait (\d+) seconds", view.task)
    if match is None:
        raise LostError("the task says no seconds")
    if view.turn == 1:
        # Half a second goes by with each press.
        return f"wait({1000 * int(match[1]) - 500})"
    return click(view.one(tag="button", text="ONE" if view.turn == 0 else "TWO"))


def wanted_words(task: str) -> list[str]:
    """The words between `Select` (or `similar to`) and `and click`."""
    match = re.search(r"Select (?:words similar to )?(.*) and click", task)
    if match is None or match[1] == "nothing":
        return []
    return match[1].split(", ")


def _boxes(view: View) -> list[Node]:
    return [node for node in view.nodes if node.tag in ("input-checkbox", "input-radio")]


def _check(view: View, wanted: Sequence[Node]) -> str:
    for box in wanted:
        if "checked" not in box.flags:
            return click(box)
    return click(submit(view))


def checkboxes(view: View) -> str:
    """Boxes by their names."""
    words = wanted_words(view.task)
    return _check(view, [box for box in _boxes(view) if view.label(box) in words])


def checkboxes_soft(view: View) -> str:
    """Boxes whose name means the same as a word of the task."""
    words = set(wanted_words(view.task))
    groups = [alike for alike in _ALIKE if alike & words]
    names = set.union(words, *groups)
    return _check(view, [box for box in _boxes(view) if view.label(box) in names])


def widget(view: View) -> str:
    """An element of a kind."""
    kind = quoted(view.task)
    tags = {"radio": "input-radio", "checkbox": "input-checkbox", "text": "input"}
    return click(view.one(tag=tags.get(kind, kind)))


def choose_list(view: View) -> str:
    """An option, or several, of a list."""
    match = re.search(r"Select (.*) from the (?:scroll )?list", view.task)
    if match is None:
        raise LostError("the task names no option")
    options = match[1].split(", ")
    box = view.one(tag="select")
    if box.value.split(" | ") != [one for one in box.options if one in options]:
        return select(box, *options)
    return click(submit(view))


def link(view: View) -> str:
    """A link in a text."""
    return click(view.one(cls="alink", text=quoted(view.task)))


def tab(view: View) -> str:
    """A tab by its name, as in `Click on Tab #2.`."""
    match = re.search(r"(Tab #\d)", view.task)
    if match is None:
        raise LostError("the task names no tab")
    return click(view.one(tag="a", text=match[1]))


def link_in_tabs(view: View) -> str:
    """A link that is in one of the tabs: each is opened in turn."""
    found = view.all(cls="alink", text=quoted(view.task))
    if found:
        return click(found[0])
    tabs = view.all(tag="a")
    if view.turn >= len(tabs):
        raise LostError("no tab has the link")
    # The first tab is open from the start.
    return click(tabs[(view.turn + 1) % len(tabs)])


def section(view: View) -> str:
    """Expand the only section, then submit."""
    return click(view.one(tag="h3")) if view.turn == 0 else click(submit(view))


def link_in_sections(view: View) -> str:
    """A link that is in one of the sections: each is expanded in turn."""
    found = view.all(cls="alink", text=quoted(view.task))
    if found:
        return click(found[0])
    headers = view.all(tag="h3")
    if view.turn >= len(headers):
        raise LostError("no section has the link")
    return click(headers[view.turn])


def color(view: View) -> str:
    """A box of a colour, named or shown."""
    match = re.search(r"the (\w+) colored box", view.task)
    boxes = view.all(tag="div", cls="color")
    if match:
        return click(first((b for b in boxes if b.looks["background"] == match[1]), match[1]))
    shown = first((one for one in view.nodes if one.tag == "query-div"), "colour")
    wanted = shown.looks["background"]
    return click(first((box for box in boxes if box.looks["background"] == wanted), wanted))


def dialog(view: View) -> str:
    """The cross of a dialog box."""
    return click(view.one(cls="ui-dialog-titlebar-close"))


def dialog_button(view: View) -> str:
    """A button of a dialog box, or its cross."""
    name = quoted(view.task)
    if name == "x":
        return dialog(view)
    return click(view.one(tag="button", text=name))


def menu(view: View) -> str:
    """`Select Alvera>Terza>Ludovika`: the pointer rests on each but the last."""
    names = view.task.removeprefix("Select ").split(">")
    name = names[min(view.turn, len(names) - 1)]
    for node in view.all(tag="div"):
        texts = [node.text, *(one.text for one in view.inside(node))]
        if name in texts:
            last = view.turn >= len(names) - 1
            return click(node) if last else f"hover({node.ref})"
    raise LostError(f"no item {name!r}")


def menu_icons(view: View) -> str:
    """An item of a nested menu by its name or its icon."""
    if view.turn == 0:
        return click(view.by_id("open-menu"))
    icons = [c for one in view.nodes if one.tag == "query-span" for c in one.classes]
    match = re.search(r'labeled "(.*)"', view.task)
    names = [name for name, icon in _ICONS.items() if icon in icons]
    name = match[1] if match else names[0]
    for wanted in (name, "Playback", "Zoom"):
        for node in view.all():
            if node.tag != "li" and wanted in (node.text, *_own_texts(view, node)):
                return click(node) if wanted == name else f"hover({node.ref})"
    raise LostError(f"no item {name!r}")


def _own_texts(view: View, node: Node) -> list[str]:
    return [one.text for one in view.inside(node) if one.ref == 0 and one.depth == node.depth + 1]


def collapsible_tree(view: View) -> str:
    """A file or folder of a tree: clicked where it is shown; else the next folder is opened."""
    match = re.search(r'named "(.*)"', view.task)
    name = match[1] if match else ""
    entries = [node for node in view.all(tag="span") if {"file", "folder"} & set(node.classes)]
    for node in entries:
        if node.text == name:
            return click(node)
    closed = [n for n in entries if "folder" in n.classes and _closed(view, n)]
    return click(first(closed, "closed folder"))


def _closed(view: View, folder: Node) -> bool:
    return "expandable" in view.around(folder).classes


def focus(view: View) -> str:
    """A text field, by its place among them."""
    match = re.search(r"the (\d)\w\w input", view.task)
    fields = view.all(tag="input")
    return click(fields[int(match[1]) - 1 if match else 0])


def ascending(view: View) -> str:
    """Numbers from 1 on; the first press hides them, their places stay."""
    number = str(view.turn + 1)
    place = first((n for n in view.pages[0] if n.tag == "text" and n.text == number), number)
    return click_xy(place.x, place.y)


def ticket(view: View) -> str:
    """The flight that costs or lasts most or least."""
    buttons = view.all(tag="button")
    if "duration" in view.task or "shortest" in view.task:
        numbers = [_minutes(one.text) for one in view.all(cls="time-duration")]
    else:
        numbers = [int(one.text.rpartition("$")[2]) for one in buttons]
    most = any(word in view.task for word in ("longest", "most expensive", "greatest"))
    return click(buttons[numbers.index(max(numbers) if most else min(numbers))])


def _minutes(duration: str) -> int:
    hours, minutes = re.findall(r"\d+", duration)
    return 60 * int(hours) + int(minutes)


def shades(view: View) -> str:
    """Every box in which one colour prevails."""
    match = re.search(r"shades of (\w+)", view.task)
    place = ("red", "green", "blue").index(match[1] if match else "")
    boxes = view.all(tag="span")
    values = [tuple(map(int, re.findall(r"\d+", box.looks["background"]))) for box in boxes]
    wanted = [
        box
        for box, parts in zip(boxes, values, strict=True)
        if parts[place] > max(p for n, p in enumerate(parts) if n != place)
    ]
    return click(wanted[view.turn]) if view.turn < len(wanted) else click(submit(view))


def agreement(view: View) -> str:
    """The text scrolled to its end and a name entered where that is asked for, then a button."""
    match = re.search(r'the name "(.*)" then press "(.*)"', view.task)
    if match is None:
        return click(view.by_id("cancel"))
    name = view.by_id("name")
    if "disabled" in name.flags:
        return f"scroll({view.by_id('text-area').ref}, 2000)"
    return filled([(name, match[1])], view.by_id(match[2].lower()))


def odd_or_even(view: View) -> str:
    """Each number's button, then submit."""
    numbers = view.all(cls="display-number")
    if view.turn >= len(numbers):
        return click(view.by_id("submit"))
    kind = "even" if int(numbers[view.turn].text) % 2 == 0 else "odd"
    return click(view.all(tag="button", cls=kind)[view.turn])


EXPERTS: dict[str, Expert] = {
    "ascending-numbers": ascending,
    "button-delay": button_delay,
    "buy-ticket": ticket,
    "choose-list": choose_list,
    "click-button": button_named,
    "click-button-sequence": button_sequence,
    "click-checkboxes": checkboxes,
    "click-checkboxes-large": checkboxes,
    "click-checkboxes-soft": checkboxes_soft,
    "click-checkboxes-transfer": checkboxes,
    "click-collapsible": section,
    "click-collapsible-2": link_in_sections,
    "click-collapsible-2-nodelay": link_in_sections,
    "click-collapsible-nodelay": section,
    "click-color": color,
    "click-dialog": dialog,
    "click-dialog-2": dialog_button,
    "click-link": link,
    "click-menu": menu,
    "click-menu-2": menu_icons,
    "click-option": checkboxes,
    "click-scroll-list": choose_list,
    "click-shades": shades,
    "click-tab": tab,
    "click-tab-2": link_in_tabs,
    "click-tab-2-easy": link_in_tabs,
    "click-tab-2-hard": link_in_tabs,
    "click-tab-2-medium": link_in_tabs,
    "click-test": button_one,
    "click-test-2": button_one,
    "click-test-transfer": button_one,
    "click-widget": widget,
    "focus-text": focus,
    "focus-text-2": focus,
    "navigate-tree": collapsible_tree,
    "odd-or-even": odd_or_even,
    "sign-agreement": agreement,
    "unicode-test": button_named,
}

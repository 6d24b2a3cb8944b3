"""Experts of the pages on which texts, numbers, dates and sliders are set."""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Sequence
from itertools import pairwise

from ..view import Node
from .base import (
    Expert,
    LostError,
    View,
    click,
    drag,
    filled,
    first,
    ordinal,
    press,
    select,
    type_into,
)
from .clicks import quoted, submit


def text(view: View) -> str:
    """A quoted text, in the letters that the task asks for."""
    wanted = quoted(view.task)
    if "upper case" in view.task:
        wanted = wanted.upper()
    if "lower case" in view.task:
        wanted = wanted.lower()
    return filled([(view.by_id("tt"), wanted)], submit(view))


def transform(view: View) -> str:
    """The letters of the page, one after the other."""
    letters = "".join(one.text for one in view.inside(view.by_id("captcha")))
    return filled([(view.by_id("tt"), letters)], submit(view))


def password(view: View) -> str:
    """A password, twice."""
    wanted = quoted(view.task)
    fields = [(view.by_id("password"), wanted), (view.by_id("verify"), wanted)]
    return filled(fields, submit(view))


def login(view: View) -> str:
    """A name and a password; a box that asks whether to leave is refused."""
    match = re.search(r'username "(.*)" and the password "(.*)" into', view.task)
    if match is None:
        raise LostError("the task names no user")
    if view.has("popup-cancel"):
        return click(view.by_id("popup-cancel"))
    fields = [(view.by_id("username"), match[1]), (view.by_id("password"), match[2])]
    return filled(fields, view.by_id("subbtn"))


def date(view: View) -> str:
    """A date of a native field."""
    month, day, year = _date(view.task)
    field = view.by_id("tt")
    if field.value == f"{year:04}-{month:02}-{day:02}":
        return click(submit(view))
    return type_into(field, f"{month:02}{day:02}{year:04}")


def time(view: View) -> str:
    """A time of day of a native field."""
    match = re.search(r"(\d+):(\d+) (AM|PM)", view.task)
    if match is None:
        raise LostError("the task says no time")
    hour = int(match[1]) % 12 + (12 if match[3] == "PM" else 0)
    field = view.by_id("tt")
    if field.value == f"{hour:02}:{match[2]}":
        return click(submit(view))
    return type_into(field, f"{int(match[1]):02}{match[2]}{match[3]}")


def picked_date(view: View) -> str:
    """A date of a calendar that opens under its field."""
    month, day, year = _date(view.task)
    field = view.by_id("datepicker")
    if field.value == f"{month:02}/{day:02}/{year}":
        return click(submit(view))
    names = view.all(cls="ui-datepicker-month")
    if not names:
        return click(field)
    shown = list(calendar.month_name).index(names[0].text)
    if shown == month:
        return click(view.one(tag="a", text=str(day)))
    return click(view.one(cls="ui-datepicker-prev" if shown > month else "ui-datepicker-next"))


def _date(task: str) -> tuple[int, int, int]:
    match = re.search(r"(\d+)/(\d+)/(\d+)", task)
    if match is None:
        raise LostError("the task says no date")
    return int(match[1]), int(match[2]), int(match[3])


def nth_word(view: View) -> str:
    """A word of a paragraph, without its full stop or comma."""
    match = re.search(r"the (\d+\w\w) word", view.task)
    if match is None:
        raise LostError("the task names no word")
    word = view.one(tag="p").text.split()[ordinal(match[1]) - 1].strip(",.")
    return filled([(view.by_id("answer-input"), word)], submit(view))


def last_word(view: View) -> str:
    """The last word of a text that does not fit its box."""
    word = view.by_id("text-area").value.split()[-1].strip(",.")
    return filled([(view.by_id("answer-input"), word)], submit(view))


def copied(view: View) -> str:
    """What is in one of the text areas, copied and pasted."""
    match = re.search(r"(\d)\w\w text area", view.task)
    source = view.all(tag="textarea")[int(match[1]) - 1 if match else 0]
    field = view.by_id("answer-input")
    if field.value == source.value:
        return click(submit(view))
    steps = (click(source), press("Control+a"), press("Control+c"), click(field))
    return steps[view.turn] if view.turn < len(steps) else press("Control+v")


def table(view: View) -> str:
    """The value of a row."""
    match = re.search(r"value of (.*) into", view.task)
    return filled([(view.by_id("tt"), _cell(view, match[1] if match else ""))], submit(view))


def table_two(view: View) -> str:
    """The values of two rows."""
    fields = []
    for number in (1, 2):
        name = view.by_id(f"ll{number}").text.removesuffix(":")
        fields.append((view.by_id(f"tt{number}"), _cell(view, name)))
    return filled(fields, submit(view))


def _cell(view: View, name: str) -> str:
    cells = view.all(tag="td")
    place = [cell.text for cell in cells].index(name)
    return cells[place + 1].text


def movies(view: View) -> str:
    """A form whose fields come in any order and under names that vary."""
    match = re.search(r"Search for (.*) movies directed by (.*) from year (\d+)", view.task)
    if match is None:
        raise LostError("the task names no film")
    wanted = {"Genre": match[1], "Director": match[2], "Date": match[3], "Year": match[3]}
    fields = view.all(tag="input")
    labels = [
        (node, key)
        for node in view.nodes
        for key in wanted
        if node.text.rstrip(":").split(" ")[-1:] == [key] or node.text == f"{key} Name"
    ]
    values = [wanted[key] for _, key in labels]
    if len(values) != len(fields):
        raise LostError("the labels do not fit the fields")
    names = ("Submit", "Search", "Go!")
    then = first((one for one in view.all() if one.text in names), "button that searches")
    return filled(list(zip(fields, values, strict=True)), then)


def arithmetic(view: View) -> str:
    """A sum, a difference or a product."""
    match = re.search(r"(-?\d+) ([-+x*]) (-?\d+)", view.by_id("math-problem").text)
    if match is None:
        raise LostError("no problem on the page")
    answer = _computed(int(match[1]), match[2], int(match[3]))
    return filled([(view.by_id("math-answer"), str(answer))], submit(view))


def algebra(view: View) -> str:
    """The unknown of `1 + x = 21`."""
    match = re.fullmatch(r"(\S+) ([-+*]) (\S+) = (-?\d+)", view.by_id("math-problem").text)
    if match is None:
        raise LostError("no problem on the page")
    left, sign, right, total = match[1], match[2], match[3], int(match[4])
    tried = range(-1000, 1000)
    x = next(
        x
        for x in tried
        if _computed(x if left == "x" else int(left), sign, x if right == "x" else int(right))
        == total
    )
    return filled([(view.by_id("math-answer"), str(x))], submit(view))


def _computed(left: int, sign: str, right: int) -> int:
    if sign == "+":
        return left + right
    return left - right if sign == "-" else left * right


def blocks(view: View) -> str:
    """The number of blocks of both sides."""
    total = len(view.all(cls="addition-block"))
    return filled([(view.by_id("math-answer"), str(total))], submit(view))


def guess(view: View) -> str:
    """A number from 0 to 9, by halves."""
    low, high, tried = 0, 9, ""
    for page in view.pages:
        for node, number in pairwise(page):
            if number.tag == "span" and "than" in node.text:
                tried = number.text
                if "higher" in node.text:
                    low = max(low, int(tried) + 1)
                else:
                    high = min(high, int(tried) - 1)
    field, wanted = view.by_id("tt"), str((low + high) // 2)
    if field.value == wanted:
        return click(submit(view))
    if not field.value:
        return type_into(field, wanted)
    # What was tried before is marked, and typing replaces it.
    if "focused" not in field.flags:
        return click(field)
    if not any(node.id == "tt" and "focused" in node.flags for node in view.pages[-2]):
        return press("Control+a")
    return f"type({json.dumps(wanted)})"


def spinner(view: View) -> str:
    """A number, by the arrows beside its field."""
    match = re.search(r"Select (-?\d+)", view.task)
    value, wanted = int(view.by_id("spinner").value), int(match[1] if match else "")
    if value == wanted:
        return click(submit(view))
    return click(view.one(cls="ui-spinner-up" if wanted > value else "ui-spinner-down"))


def autocomplete(view: View) -> str:
    """An item of a list that opens while its beginning is typed."""
    ends = re.findall(r'"(.*?)"', view.task)
    field = view.by_id("tags")
    if not field.value:
        return type_into(field, ends[0])
    if view.turn > 1:
        return click(submit(view))
    lists = view.all(tag="li", cls="ui-menu-item")
    items = [node for one in lists for node in view.inside(one) if node.text.startswith(ends[0])]
    if len(ends) > 1:
        items = [node for node in items if node.text.endswith(ends[1])]
    return click(first(items, "item of the list"))


def _slide(view: View, handle: Node, value: int, wanted: int, pixels: float) -> str:
    """A step of a slider towards `wanted`, one unit of which is `pixels` wide."""
    if abs(wanted - value) <= 2 and "focused" in handle.flags:
        return press("ArrowRight" if wanted > value else "ArrowLeft")
    return drag(handle, (round(handle.x + (wanted - value) * pixels, 1), handle.y))


def slider(view: View) -> str:
    """One slider of unknown bounds: both ends are visited, the rest follows from them."""
    match = re.search(r"Select (-?\d+)", view.task)
    wanted, handle = int(match[1] if match else ""), view.one(cls="ui-slider-handle")
    value = int(view.by_id("val").text)
    if value == wanted:
        return click(submit(view))
    steps = (click(handle), press("End"), press("Home"))
    if view.turn < len(steps):
        return steps[view.turn]
    (low_x, low_y, low), (high_x, high_y, high) = _ends(view.pages)
    part = (wanted - low) / (high - low)
    if abs(wanted - value) <= 2:
        return press("ArrowRight" if wanted > value else "ArrowLeft")
    place = (round(low_x + part * (high_x - low_x), 1), round(low_y + part * (high_y - low_y), 1))
    return drag(handle, place)


def _ends(pages: Sequence[Sequence[Node]]) -> list[tuple[int, int, int]]:
    found = []
    for page in pages:
        handle = first((n for n in page if "ui-slider-handle" in n.classes), "handle")
        value = first((n for n in page if n.id == "val"), "value")
        found.append((handle.x, handle.y, int(value.text)))
    found.sort(key=lambda one: one[2])
    return [found[0], found[-1]]


def three_sliders(view: View) -> str:
    """Three sliders of the same length."""
    match = re.search(r"\[(\d+),(\d+),(\d+)\]", view.task)
    if match is None:
        raise LostError("the task names no combination")
    handles = view.all(cls="ui-slider-handle")
    for number, handle in enumerate(handles, 1):
        value = int(view.by_id(f"val-{number}").text)
        if value != int(match[number]):
            return _slide(view, handle, value, int(match[number]), 6.9)
    return click(submit(view))


def slider_and_box(view: View) -> str:
    """A slider, then a box."""
    match = re.search(r"Select (-?\d+) with the slider, click the (\d)\w\w checkbox", view.task)
    if match is None:
        raise LostError("the task names no number")
    handle, track = view.one(cls="ui-slider-handle"), view.by_id("slider")
    value = int(view.by_id("val").text)
    if value != int(match[1]):
        # The track's middle is 0, and its handle stands where the value is.
        pixels = abs(handle.x - track.x) / abs(value) if value else 4.0
        return _slide(view, handle, value, int(match[1]), pixels)
    box = view.by_id(f"checkbox-{match[2]}")
    return click(submit(view)) if "checked" in box.flags else click(box)


def radio_and_number(view: View) -> str:
    """A radio button, then a number in a field."""
    match = re.search(r'the (\d)\w\w radio.* number "(-?\d+)" into the (\d)\w\w', view.task)
    if match is None:
        raise LostError("the task names no button")
    radio = view.all(tag="input-radio")[int(match[1]) - 1]
    if "checked" not in radio.flags:
        return click(radio)
    return filled([(view.by_id(f"input-{match[3]}"), match[2])], submit(view))


def dropdown_and_button(view: View) -> str:
    """An option of a list, then one of three buttons."""
    match = re.search(
        r'Choose (.*) from the dropdown, then click the button labeled "(.*)"', view.task
    )
    if match is None:
        raise LostError("the task names no option")
    box = view.by_id("dropdown")
    if box.value != match[1]:
        return select(box, match[1])
    return click(view.by_id(match[2].lower()))


EXPERTS: dict[str, Expert] = {
    "choose-date": picked_date,
    "choose-date-easy": picked_date,
    "choose-date-medium": picked_date,
    "choose-date-nodelay": picked_date,
    "copy-paste": copied,
    "copy-paste-2": copied,
    "enter-date": date,
    "enter-password": password,
    "enter-text": text,
    "enter-text-2": text,
    "enter-text-dynamic": text,
    "enter-time": time,
    "find-word": nth_word,
    "form-sequence": slider_and_box,
    "form-sequence-2": radio_and_number,
    "form-sequence-3": dropdown_and_button,
    "guess-number": guess,
    "login-user": login,
    "login-user-popup": login,
    "multi-layouts": movies,
    "multi-orderings": movies,
    "read-table": table,
    "read-table-2": table_two,
    "scroll-text": last_word,
    "simple-algebra": algebra,
    "simple-arithmetic": arithmetic,
    "text-transform": transform,
    "use-autocomplete": autocomplete,
    "use-autocomplete-nodelay": autocomplete,
    "use-slider": slider,
    "use-slider-2": three_sliders,
    "use-spinner": spinner,
    "visual-addition": blocks,
}

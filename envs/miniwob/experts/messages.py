"""Experts of the pages that imitate applications: mail, social media, shops, search, a terminal."""

from __future__ import annotations

import re

from ..view import Node
from .base import Expert, LostError, View, click, filled, first
from .clicks import quoted, submit

_NAME = r"\b[A-Z][a-z]+(?:-[A-Z][a-z]+)?\b"
_DELETING = re.compile(r"\b(?:delete|trash|remove|rid of|erase|bin\b)", re.IGNORECASE)
_STARRING = re.compile(r"\b(?:important|star)", re.IGNORECASE)


def mail(view: View) -> str:
    """Open the mail of a person, then delete it, mark it, answer it or send it on."""
    task = view.task
    names = re.findall(_NAME, re.sub(r'"[^"]*"', "", task))
    if view.has("reply-text"):
        return filled([(view.by_id("reply-text"), quoted(task))], view.by_id("send-reply"))
    forward = view.all(cls="forward-sender")
    sender = _sender(view)
    if forward:
        others = [name for name in names if name in _people(view, names) and name != sender]
        return filled([(forward[0], others[-1])], view.by_id("send-forward"))
    if not view.has("email-bar"):
        return click(view.one(cls="email-sender", text=sender))
    if _DELETING.search(task):
        return click(view.one(cls="trash"))
    if _STARRING.search(task):
        return click(view.one(cls="star"))
    return click(view.one(cls="email-reply" if '"' in task else "email-forward"))


def _sender(view: View) -> str:
    """The person in the task whose mail is in the inbox; the first one where both are."""
    senders = {n.text for n in view.pages[0] if "email-sender" in n.classes}
    task = re.sub(r'"[^"]*"', "", view.task)
    pattern = rf"(?:by|from|wrote) ({_NAME})|({_NAME})(?:'s| wrote| sent)"
    for match in re.finditer(pattern, task):
        name = match[1] or match[2]
        if name in senders:
            return name
    for name in re.findall(_NAME, task):
        if name in senders:
            return str(name)
    raise LostError("no sender of the inbox is in the task")


def _people(view: View, names: list[str]) -> list[str]:
    """The words of the task that are names: not those that merely start it."""
    task = view.task
    return [name for name in names if not task.startswith(name) or _is_sender(view, name)]


def _is_sender(view: View, name: str) -> bool:
    return any("email-sender" in node.classes and node.text == name for node in view.pages[0])


_CONTROLS = {"Reply": "reply", "Retweet": "retweet", "Like": "like", "Share": "share"}
_MORE = {
    "Share via DM": "share",
    "Copy link to Tweet": "copy",
    "Embed Tweet": "embed",
    "Mute": "menu-user",
    "Block": "block-user",
    "Report": "report",
}


def _posts(view: View, user: str) -> list[Node]:
    found = []
    for post in view.all(cls="media"):
        if any(node.text == user and "username" in node.classes for node in view.inside(post)):
            found.append(post)
    return found


def _control(view: View, post: Node, cls: str) -> Node:
    return first((node for node in view.inside(post) if cls in node.classes), cls)


def social(view: View) -> str:
    """A button under a post, or an item of the menu behind its three dots."""
    match = re.search(r'user (@\S+), click on the "(.*)" button', view.task)
    if match is None:
        raise LostError("the task names no user")
    post = first(_posts(view, match[1]), f"post by {match[1]}")
    if match[2] in _CONTROLS:
        return click(_control(view, post, _CONTROLS[match[2]]))
    items = [n for n in view.inside(post) if n.tag == "li" and _MORE[match[2]] in n.classes]
    return click(items[0]) if items else click(_control(view, post, "more"))


def social_many(view: View) -> str:
    """The same button under several posts of a user, or under all of them."""
    match = re.search(r'"(.*)" button on (all|\d+) posts? by (@\S+) and', view.task)
    if match is None:
        raise LostError("the task names no posts")
    posts = _posts(view, match[3])
    wanted = len(posts) if match[2] == "all" else int(match[2])
    if view.turn < wanted:
        return click(_control(view, posts[view.turn], _CONTROLS[match[1]]))
    return click(submit(view))


def phone_book(view: View) -> str:
    """The pages are turned until the person comes."""
    match = re.search(r"Find (.*) in the contact book and click on their (\w+)", view.task)
    if match is None:
        raise LostError("the task names no person")
    if view.one(tag="h2").text == match[1]:
        return click(view.one(tag="a", cls=match[2]))
    return click(view.one(tag="a", text=">"))


def search(view: View) -> str:
    """A search, then a result by its place among nine on three pages."""
    match = re.search(r'enter "(.*)" and press "Search", then .* the (\d)\w\w search', view.task)
    if match is None:
        raise LostError("the task names no search")
    if not view.has("page-content"):
        return filled([(view.by_id("search-text"), match[1])], view.by_id("search"))
    page, place = divmod(int(match[2]) - 1, 3)
    pages = [node for node in view.all(tag="a", cls="page-link") if node.text.isdigit()]
    active = [node for node in pages if "active" in view.around(node).classes]
    if not active or active[0].text != str(page + 1):
        return click(first((one for one in pages if one.text == str(page + 1)), "page"))
    results = [n for n in view.inside(view.by_id("page-content")) if n.tag == "a"]
    return click(results[place])


def food(view: View) -> str:
    """One of each of some dishes, or so many of a kind."""
    dishes = view.all(cls="food-item")
    match = re.search(r"Order (\d+) items that are (.*)", view.task)
    if match:
        kind = match[2].strip(".")
        titles = [
            dish
            for dish in dishes
            if any(node.looks.get("title") == kind for node in view.inside(dish))
        ]
        plus = [first((n for n in view.inside(titles[0]) if "add" in n.classes), "+")]
        plus *= int(match[1])
    else:
        names = view.task.removeprefix("Order one of each item: ").split(", ")
        plus = [
            first((n for n in view.inside(dish) if "add" in n.classes), "+")
            for dish in dishes
            if any(node.text in names for node in view.inside(dish))
        ]
    if view.turn < len(plus):
        return click(plus[view.turn])
    return click(view.one(tag="button", text="Order!"))


def terminal(view: View) -> str:
    """List the files, then remove one with the ending that the task names."""
    if view.turn == 0:
        return click(view.by_id("terminal"))
    if view.turn == 1:
        return r'type("ls\n")'
    files = view.all(cls="output")[-1].text.split()
    match = re.search(r"extension (\.\S+)", view.task)
    wanted = [one for one in files if (one.endswith(match[1]) if match else "." not in one)]
    return rf'type("rm {wanted[0]}\n")'


def stock(view: View) -> str:
    """Wait for the price, then buy."""
    match = re.search(r"less than \$(\d+\.?\d*)", view.task)
    limit = float(match[1]) if match else 0.0
    prices = [node.text for node in view.nodes if re.fullmatch(r"\$\d+\.?\d*", node.text)]
    if prices and float(prices[-1][1:]) < limit:
        return click(view.by_id("buy"))
    return "wait()"


def generate(view: View) -> str:
    """New numbers until one fits."""
    shown = view.by_id("display-number").text
    if shown != "-" and _fits(view.task, int(shown)):
        return click(view.by_id("submit"))
    return click(view.by_id("generate"))


def _fits(task: str, number: int) -> bool:
    match = re.search(r"(less|greater) than (\d+)", task)
    if match:
        limit = int(match[2])
        return number < limit if match[1] == "less" else number > limit
    return number % 2 == (1 if "odd" in task else 0)


EXPERTS: dict[str, Expert] = {
    "email-inbox": mail,
    "email-inbox-delete": mail,
    "email-inbox-forward": mail,
    "email-inbox-forward-nl": mail,
    "email-inbox-forward-nl-turk": mail,
    "email-inbox-important": mail,
    "email-inbox-nl-turk": mail,
    "email-inbox-noscroll": mail,
    "email-inbox-reply": mail,
    "email-inbox-star-reply": mail,
    "generate-number": generate,
    "order-food": food,
    "phone-book": phone_book,
    "search-engine": search,
    "social-media": social,
    "social-media-all": social_many,
    "social-media-some": social_many,
    "stock-market": stock,
    "terminal": terminal,
}

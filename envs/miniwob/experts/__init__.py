"""Scripted solutions: for each page a function from what was shown to the next action."""

from __future__ import annotations

from collections.abc import Sequence

from ..view import pages_of, task_of
from . import clicks, figures, forms, messages
from .base import Expert, View

EXPERTS: dict[str, Expert] = {
    **clicks.EXPERTS,
    **figures.EXPERTS,
    **forms.EXPERTS,
    **messages.EXPERTS,
}
"""Page -> its expert, which solves it whatever the seed."""


def act(page: str, seen: Sequence[str]) -> str | None:
    """The next action on `page`; None where no expert knows the page as it is."""
    expert, pages = EXPERTS.get(page), pages_of(seen)
    if expert is None or not pages:
        return None
    try:
        return expert(View(task=task_of(seen), pages=pages, turn=len(seen) - 1))
    except (LookupError, ValueError):
        return None

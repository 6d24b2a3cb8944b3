r"""What counts as well formed: the structure of an episode's actions, and `\boxed{}` answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TAG = re.compile(r"<(/?)(think|search|result|answer)>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def valid_structure(actions: Sequence[str], *, think: bool) -> bool:
    """Whether an episode's own actions pass Tree-GRPO's automaton (arXiv:2509.21240, its code).

    start -> think -> (search -> result -> think)* -> answer -> end, where results stand between
    actions and are not the policy's: so each action must be a thought and a search, the last a
    thought and an answer, with balanced tags, text inside each, and only white space around them.
    Without `think` a thought may be missing, but not misplaced. A thought that the chat template
    has opened needs only its end.
    """
    if not actions:
        return False
    last = len(actions) - 1
    return all(
        _blocks(action) in _shapes("answer" if place == last else "search", think=think)
        for place, action in enumerate(actions)
    )


def boxed(text: str) -> str | None:
    r"""The content of the last closed `\boxed{...}`, braces counted; None where there is none."""
    found = None
    for match in _BOX.finditer(text):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                found = text[match.end() : place].strip()
                break
    return found


def _shapes(action: str, *, think: bool) -> tuple[list[str], ...]:
    with_thought = ["think", action]
    return (with_thought,) if think else (with_thought, [action])


def _blocks(action: str) -> list[str] | None:
    """Names of the blocks of an action in order; None where its structure is broken."""
    if "</think>" in action and "<think>" not in action:
        action = f"<think>{action}"
    names: list[str] = []
    opened: str | None = None
    at = 0
    for tag in _TAG.finditer(action):
        between, name = action[at : tag.start()], tag[2]
        at = tag.end()
        if opened is None:
            if tag[1] or between.strip():
                return None
            opened = name
            continue
        if not tag[1] or name != opened or not between.strip():
            return None
        names.append(name)
        opened = None
    return None if opened or action[at:].strip() else names

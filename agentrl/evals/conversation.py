"""A sample as a conversation: who said what, with the calls that each action made."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentrl.core.types import ToolRecord
from agentrl.evals.samples import Sample

_OPENED = re.compile(
    r"<\|im_start\|>(\w+)\n"
    r"|<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n"
    r"|<\|(system|user|assistant|tool|inline|tools)\|>[ \n]?"
)
_CLOSED = re.compile(r"<\|(?:im_end|eot_id|end)\|>\n?")
_ROLES = {
    **{name: name for name in ("system", "user", "assistant", "tool")},
    "tools": "system",  # Schemas of tools, which a chat server is given apart.
}


class Said(NamedTuple):
    """One message. `turn` is the turn whose action or observation it is; None: the prompt's."""

    role: str
    text: str
    turn: int | None = None
    calls: tuple[ToolRecord, ...] = ()


def conversation(sample: Sample) -> list[Said]:
    """Every message of `sample`, first to last.

    A text with the marks of a chat template (ChatML, Llama's, Phi's) or of a transcript is taken
    apart at them; one without is a message of the user, or of the tool where the action before it
    made calls.
    """
    messages = [Said(role, text) for role, text in _taken_apart(sample.prompt, "user")]
    path = sample.tree.turns
    for number, (action, observation) in enumerate(sample.texts):
        calls = path[number].tool_calls if number < len(path) else ()
        messages.append(Said("assistant", action, number, calls))
        answered = "tool" if calls else "user"
        messages += [Said(role, text, number) for role, text in _taken_apart(observation, answered)]
    return messages


def _taken_apart(text: str, role: str) -> list[tuple[str, str]]:
    """(role, content) of the messages in `text`; `role` is that of text without marks."""
    opened = list(_OPENED.finditer(text))
    if not opened:
        return [(role, text)] if text else []
    found = []
    before = _CLOSED.sub("", text[: opened[0].start()])
    if before.strip():
        found.append((role, before))
    for number, mark in enumerate(opened):
        end = opened[number + 1].start() if number + 1 < len(opened) else len(text)
        content = _CLOSED.sub("", text[mark.end() : end])
        named = next(name for name in mark.groups() if name)
        if content or named != "assistant":
            found.append((_ROLES.get(named, role), content))
    return found

"""The user of a conversation: one that keeps to a script, or a model that plays a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from .model import ChatModel, Line, ModelSettings

STOPS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
"""What a user writes to end the conversation (tau2-bench)."""

_GREETING = "Hi! How can I help you today?"
_ROLE = """You play a customer who has contacted customer service. You are the customer, never the agent.

- Say one short message at a time, in your own words, as people write in a chat.
- Keep to the scenario below. What it does not tell you, you do not know; invent nothing.
- Do not tell everything at once: wait until the agent asks for it.
- When you have what the scenario wants, write ###STOP###.
- When the agent hands you over to somebody else, write ###TRANSFER###.
- When the scenario does not tell you how to go on, write ###OUT-OF-SCOPE###.

<scenario>
{scenario}
</scenario>"""  # noqa: E501


class Said(NamedTuple):
    """A line of the conversation: the agent's or the user's."""

    agent: bool
    text: str


class User(Protocol):
    """Answers the agent; everything that it knows is in its arguments, so that it forks freely."""

    async def reply(self, scenario: str, conversation: Sequence[Said]) -> str:
        """What the user says next; empty conversation: the opening."""
        ...


class ScriptedUser:
    """Says its whole scenario at once, agrees to every question, and leaves after a statement.

    For tests and for training without a second model: it neither holds anything back nor changes
    its mind, so it is easier to serve than a person.
    """

    async def reply(self, scenario: str, conversation: Sequence[Said]) -> str:
        """A question mark in the agent's message makes it a question."""
        if not conversation:
            return scenario
        return "Yes, please." if "?" in conversation[-1].text else STOPS[0]


class ModelUser:
    """A model that plays the scenario, as in tau2-bench."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def reply(self, scenario: str, conversation: Sequence[Said]) -> str:
        """What the model says; to it the agent's messages are the other side's."""
        lines = [Line("system", _ROLE.format(scenario=scenario)), Line("user", _GREETING)]
        lines += [Line("user" if said.agent else "assistant", said.text) for said in conversation]
        return await self._model.say(lines)


@lru_cache(maxsize=8)
def model_user(settings: ModelSettings) -> ModelUser:
    """One user of these settings for the whole process."""
    return ModelUser(ChatModel(settings))

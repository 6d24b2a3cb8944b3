"""What a service was worth: its records, what was said and what was called, as in tau2-bench."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.core.errors import EnvError, ToolError
from agentrl.core.tool import Tool
from agentrl.core.types import ToolCall

from .domain import Domain
from .model import ChatModel, Line
from .users import Said

_JUDGE = """You check a conversation between a customer service agent and a customer.
For each numbered statement say whether the conversation shows that it is true.
Answer with a JSON list of true and false, one for each statement, and nothing else."""


def act(state: Domain, actions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Do `actions` in `state`; those that are refused change nothing, and are returned in words."""
    functions = {function.__name__: function for function in state.functions}
    refused = []
    for action in actions:
        tool = Tool.of(functions[action["name"]])
        try:
            tool.function(**tool.validate(action["arguments"]))
        except ToolError as error:
            refused.append(f"{action['name']}: {error}")
    return refused


def database(state: Domain, gold: Domain, actions: Sequence[Mapping[str, Any]]) -> float:
    """1.0 if the records of `state` are those of `gold` after `actions`, which change `gold`."""
    act(gold, actions)
    return float(state.db.same_as(gold.db))


def communicated(said: Sequence[Said], wanted: Sequence[str]) -> float:
    """1.0 if each string stands in a message of the agent, in any case and without its commas."""
    texts = [one.text.lower().replace(",", "") for one in said if one.agent]
    return float(all(any(info.lower() in text for text in texts) for info in wanted))


def called(calls: Sequence[ToolCall], actions: Sequence[Mapping[str, Any]]) -> float:
    """1.0 if each action was called, with equal arguments where they are to be compared."""

    def matches(action: Mapping[str, Any], call: ToolCall) -> bool:
        compared = action.get("compare")
        keys = action["arguments"].keys() | call.arguments.keys() if compared is None else compared
        return action["name"] == call.name and all(
            action["arguments"].get(key) == call.arguments.get(key) for key in keys
        )

    return float(all(any(matches(action, call) for call in calls) for action in actions))


async def judged(judge: ChatModel, said: Sequence[Said], assertions: Sequence[str]) -> float:
    """1.0 if the judge finds every assertion true.

    Raises:
        EnvError: the judge failed, or did not answer as it should: no verdict is no 0.
    """
    conversation = "\n".join(f"{'Agent' if one.agent else 'Customer'}: {one.text}" for one in said)
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(assertions, start=1))
    asked = f"Conversation:\n{conversation}\n\nStatements:\n{numbered}"
    reply = await judge.say([Line("system", _JUDGE), Line("user", asked)])
    found = re.search(r"\[[^\[\]]*\]", reply)
    try:
        verdicts = json.loads(found[0]) if found else None
    except ValueError:
        verdicts = None
    if (
        not isinstance(verdicts, list)
        or len(verdicts) != len(assertions)
        or not all(isinstance(one, bool) for one in verdicts)
    ):
        raise EnvError(
            f"the judge should answer with {len(assertions)} of true and false, got {reply[:200]!r}"
        )
    return float(all(verdicts))

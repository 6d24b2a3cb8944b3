"""Messages and tools in the words of chat APIs, which verifiers speaks, as ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from agentrl.core.errors import ContractError, EnvError
from agentrl.core.tool import Tool
from agentrl.core.types import Message


def content_of(message: Mapping[str, Any]) -> str:
    """The text of a message; `EnvError` for an image."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [one for one in content if isinstance(one, dict)]
        with contextlib.suppress(KeyError):
            return "\n".join(str(one["text"]) for one in parts)
        raise EnvError("verifiers: only text can be shown to the policy, not images")
    return "" if content is None else str(content)


def message_of(message: Mapping[str, Any]) -> Message:
    """A message of a chat API as one of ours."""
    role = str(message.get("role"))
    return Message.of("system" if role == "developer" else role, content_of(message))


def essence_of(message: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes two messages of a conversation the same."""
    calls = [one.get("function") for one in message.get("tool_calls") or ()]
    return (message.get("role"), content_of(message), json.dumps(calls, sort_keys=True))


def tool_of(described: Mapping[str, Any], where: str) -> Tool:
    """A tool as a chat API describes it; verifiers runs it, so calling it is a mistake."""
    function = described.get("function", {})
    try:
        return Tool.from_schema(
            _never,
            name=str(function.get("name", "")),
            description=str(function.get("description", "")),
            parameters=function.get("parameters") or {},
        )
    except ContractError as error:
        raise EnvError(f"{where}: {error}") from error


def _never(**arguments: object) -> None:
    raise ContractError("verifiers runs its tools itself")

"""Messages of a transcript as a chat server takes them, and its message as an action's text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from agentrl.core.errors import EngineError
from agentrl.core.types import Image, Message, Text
from agentrl.rollout.render import INLINE

Wire: TypeAlias = dict[str, Any]
"""A message of the chat API."""

_CALL = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*</tool_call>\s*", re.DOTALL)
# Tags that the json format reads; inside a call's JSON they are written as escapes.
_TAG = re.compile(r"<(?=/?(?:think|answer|tool_call|tool_response)>)")
_MISTAKE = re.compile(r"error: call (\d{1,3}): ")
_TOOLS_TEXT: Final = (
    "You may call these tools, one JSON schema a line:\n<tools>\n{schemas}\n</tools>\n"
    "A call is a JSON object inside <tool_call> and </tool_call>:\n"
    '<tool_call>\n{{"name": "<name>", "arguments": {{<arguments>}}}}\n</tool_call>\n'
    "Several may follow each other; nothing may follow the last."
)


class Call(NamedTuple):
    """A call in an action's text: the tool's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


class Request(NamedTuple):
    """What a request shows: its messages, and whether the last is a reply to be continued."""

    messages: list[Wire]
    continued: bool


def request_of(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    *,
    native: bool,
    inline: Literal["user", "continue"],
) -> Request:
    """`messages` in the API's form.

    With `native`, an action whose calls were all answered becomes `tool_calls`, its results `tool`
    messages; otherwise calls stay text, and results are the user's, inside `<tool_response>`, as
    the templates of Hermes and Qwen show them. Inline messages are the user's, or ("continue") go
    on in the reply before them.
    """
    shown = list(messages)
    if tools and not native:
        shown = _with_instructions(shown, tools)
    if inline == "continue":
        shown = _joined(shown)
    wire: list[Wire] = []
    at = 0
    while at < len(shown):
        if shown[at].role == "assistant":
            results = _run(shown, at + 1, "tool")
            wire += _exchange(shown[at], results, first=len(wire), native=native and bool(tools))
            at += 1 + len(results)
        elif shown[at].role in ("tool", INLINE):
            run = _run(shown, at, shown[at].role)
            wire.append({"role": "user", "content": _content(_as_users(run))})
            at += len(run)
        else:
            wire.append({"role": shown[at].role, "content": _content(shown[at].parts)})
            at += 1
    continued = inline == "continue" and bool(wire) and wire[-1]["role"] == "assistant"
    return Request(wire, continued)


def action_of(content: str, calls: Sequence[tuple[str, object]]) -> str:
    """The text of an action that says `content` and makes `calls` (name, arguments as sent).

    Arguments that are no JSON object stand in it as they came, for the environment to refuse.
    """
    texts = [content] if content else []
    for name, given in calls:
        arguments = _parsed(given)
        if arguments is None:
            body = f'{{"name": {json.dumps(name)}, "arguments": {given}}}'
        else:
            body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
            body = _TAG.sub(r"\\u003c", body)
        texts.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(texts)


def split_calls(text: str) -> tuple[str, list[Call]] | None:
    """What an action says and the calls that end it; None where it has none that are whole."""
    thought = text.rfind("</think>")
    start = text.find("<tool_call>", max(thought, 0))
    if start < 0:
        return None
    calls: list[Call] = []
    at = start
    while at < len(text):
        match = _CALL.match(text, at)
        call = None if match is None else _call(match[1])
        if match is None or call is None:
            return None
        calls.append(call)
        at = match.end()
    return text[:start].removesuffix("\n"), calls


def with_stop(text: str, stop: Sequence[str], *, ended: bool, matched: object, told: bool) -> str:
    """`text` up to and with its stop string, which the API leaves out.

    `matched` is what the server says it stopped at, `told` that it says so at all; where it does
    not, and the reply `ended` by itself, the tag that was opened last and not closed is meant.
    """
    found = [(text.find(one), one) for one in stop if one in text]
    if found:
        at, first = min(found)
        return text[: at + len(first)]
    if not ended:
        return text
    if isinstance(matched, str) and matched in stop:
        return text + matched
    if told:
        return text
    said = text[text.rfind("</think>") + 1 :]
    opened = [(said.rfind(f"<{one[2:]}"), one) for one in stop if one.startswith("</")]
    at, last = max(opened, default=(-1, ""))
    return text + last if at >= 0 else text


def words_of(content: object, choice: object) -> tuple[str, str]:
    """Text and thoughts of a reply's `content`: a string, nothing, or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    said: list[str] = []
    thought: list[str] = []
    if not isinstance(content, list):
        raise EngineError(f"content is neither text nor parts, the server sent {choice!r:.300}")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        body = part.get(kind) if kind in ("text", "thinking") else None
        if isinstance(body, list):
            body = "".join(str(one.get("text", "")) for one in body if isinstance(one, dict))
        if not isinstance(body, str):
            raise EngineError(f"a part of content is no text, the server sent {choice!r:.300}")
        (said if kind == "text" else thought).append(body)
    return "".join(said), "".join(thought)


def calls_of(message: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Names and arguments, as they came, of a reply's calls."""
    given = message.get("tool_calls") or []
    older = message.get("function_call")
    if not given and isinstance(older, dict):
        given = [{"function": older}]
    calls: list[tuple[str, object]] = []
    for one in given if isinstance(given, list) else [given]:
        function = one.get("function") if isinstance(one, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise EngineError(
                f"a tool call needs a function's name, the server sent {given!r:.300}"
            )
        calls.append((name, function.get("arguments")))
    return calls


def _exchange(said: Message, results: Sequence[Message], *, first: int, native: bool) -> list[Wire]:
    """An action and the results that follow it."""
    text = _sendable(said.text)
    found = split_calls(text) if native else None
    if found is None or len(found[1]) != len(results):
        plain: list[Wire] = [{"role": "assistant", "content": text}]
        if results:
            plain.append({"role": "user", "content": _content(_as_users(results))})
        return plain
    content, calls = found
    # Nine letters and digits: Mistral takes no other ids.
    ids = [f"c{first:05d}{number:03d}" for number in range(len(calls))]
    asked = [
        {
            "id": id_,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": _sendable(json.dumps(call.arguments, ensure_ascii=False)),
            },
        }
        for id_, call in zip(ids, calls, strict=True)
    ]
    wire: list[Wire] = [{"role": "assistant", "content": content or None, "tool_calls": asked}]
    pictures: list[Text | Image] = []
    for id_, result in zip(ids, _in_order_of_calls(results), strict=True):
        wire.append({"role": "tool", "tool_call_id": id_, "content": _sendable(result.text)})
        pictures += [part for part in result.parts if isinstance(part, Image)]
    if pictures:  # a tool message holds text only
        wire.append({"role": "user", "content": _content(pictures)})
    return wire


def _in_order_of_calls(results: Sequence[Message]) -> list[Message]:
    """Results by call: an environment tells mistakes last, each with the number of its call."""
    placed: dict[int, Message] = {}
    rest = list(results)
    while rest and (match := _MISTAKE.match(rest[-1].text)):
        number = int(match[1]) - 1
        if number in placed or not 0 <= number < len(results):
            break
        placed[number] = rest.pop()
    others = iter(rest)
    return [placed[n] if n in placed else next(others) for n in range(len(results))]


def _as_users(messages: Sequence[Message]) -> list[Text | Image]:
    """Parts of one message of the user that shows tool or inline messages."""
    parts: list[Text | Image] = []
    for message in messages:
        if message.role == INLINE:
            parts += message.parts
        else:
            before = "\n<tool_response>\n" if parts else "<tool_response>\n"
            parts += [Text(before), *message.parts, Text("\n</tool_response>")]
    return parts


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Each run of the policy's messages and inline ones as one message of the policy's.

    Inline messages that start a conversation are what it begins with, and no reply.
    """
    joined: list[Message] = []
    for ours, run in groupby(messages, lambda one: one.role in ("assistant", INLINE)):
        same = list(run)
        if ours and (joined or same[0].role == "assistant"):
            joined.append(Message("assistant", tuple(part for one in same for part in one.parts)))
        else:
            joined += same
    return joined


def _with_instructions(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """`messages` with the tools in the system message, unless it describes calls already."""
    schemas = "\n".join(json.dumps(one, ensure_ascii=False) for one in tools)
    described = Text(_TOOLS_TEXT.format(schemas=schemas))
    if messages and messages[0].role == "system":
        if "<tool_call>" in messages[0].text:
            return list(messages)
        return [Message("system", (*messages[0].parts, Text("\n\n"), described)), *messages[1:]]
    return [Message("system", (described,)), *messages]


def _run(messages: Sequence[Message], start: int, role: str) -> list[Message]:
    end = start
    while end < len(messages) and messages[end].role == role:
        end += 1
    return list(messages[start:end])


def _content(parts: Iterable[Text | Image]) -> str | list[Wire]:
    """Text where there is nothing else, else the API's parts."""
    content: list[Wire] = []
    for is_text, run in groupby(parts, lambda part: isinstance(part, Text)):
        if is_text:
            text = "".join(part.text for part in run if isinstance(part, Text))
            content.append({"type": "text", "text": _sendable(text)})
        else:
            for part in run:
                assert isinstance(part, Image)
                data = base64.b64encode(part.data).decode()
                url = f"data:{part.media_type};base64,{data}"
                content.append({"type": "image_url", "image_url": {"url": url}})
    if all(one["type"] == "text" for one in content):
        return "".join(one["text"] for one in content)
    return [one for one in content if one.get("text") != ""]


def _sendable(text: str) -> str:
    """`text` without lone surrogates, which no JSON text of a server may hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _call(body: str) -> Call | None:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not data.keys() <= {"name", "arguments"}:
        return None
    name, arguments = data.get("name"), data.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return Call(name, arguments)


def _parsed(given: object) -> Mapping[str, Any] | None:
    """Arguments as an object: sent as JSON text, as an object, or not at all."""
    if given is None or given == "":
        return {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    return given if isinstance(given, dict) else None

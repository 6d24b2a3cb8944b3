"""The language of environment hosts: length-prefixed JSON frames that hold many messages each."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from agentrl.core.env import Observation, StepInfo, StepResult
from agentrl.core.errors import AgentRLError
from agentrl.core.types import Image, Message, Task, Text, ToolRecord

PROTOCOL = 1
"""Version of the language; a client and a host that differ refuse each other."""

MAX_FRAME = 64 * 2**20
"""Bytes that a frame's body may have: a longer one is refused before it is read."""

BATCH = 256
"""Messages per frame at most: the other side starts on the first while the rest is written."""

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None

_HEADER = struct.Struct(">I")
_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_NO_INFO = StepInfo()
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


class FrameError(AgentRLError, ValueError):
    """A frame or a record that does not follow the language."""


def encode_frame(messages: Sequence[object], *, max_bytes: int = MAX_FRAME) -> bytes:
    """One frame of `messages`; `FrameError` when they are not plain data or too large together."""
    try:
        body = _ENCODE(messages).encode("ascii")
    except _UNENCODABLE as error:
        raise FrameError(
            f"a value cannot travel to another process: {error}; only strings, numbers, booleans, "
            "None, lists and mappings with string keys can"
        ) from error
    if len(body) > max_bytes:
        raise FrameError(
            f"a frame of {len(body):,} bytes passes the limit of {max_bytes:,}; send less at once"
        )
    return _HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames; holds at most one incomplete frame."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, *, max_bytes: int = MAX_FRAME) -> None:
        self._buffer = b""
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[list[Json]]:
        """The messages of all frames that `data` completes; `FrameError` ends the stream."""
        buffer = self._buffer + data if self._buffer else data
        messages: list[list[Json]] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(buffer, start)
            if size > self._max_bytes:
                raise FrameError(
                    f"a frame announces {size:,} bytes, the limit is {self._max_bytes:,}"
                )
            end = start + _HEADER.size + size
            if end > len(buffer):
                break
            messages += _decode_body(buffer[start + _HEADER.size : end])
            start = end
        self._buffer = buffer[start:]
        return messages


def _decode_body(body: bytes) -> list[list[Json]]:
    try:
        messages = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame is not JSON: {error}") from error
    if not isinstance(messages, list) or not all(type(one) is list and one for one in messages):
        raise FrameError("a frame is not a list of messages, each a list that is not empty")
    return messages


def check_plain(value: object, *, where: str) -> None:
    """`FrameError` naming the place in `value` that JSON would change without a word."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise FrameError(
                    f"{where} has the key {key!r} of type {type(key).__name__}; keys of data that "
                    "travels between processes are strings"
                )
            check_plain(item, where=f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_plain(item, where=f"{where}[{index}]")
    elif value is not None and not isinstance(value, (str, int, float)):
        raise FrameError(
            f"{where} is a {type(value).__name__}; only strings, numbers, booleans, None, lists "
            "and mappings travel between processes"
        )


def plain(value: object) -> Json:
    """`value` with every `Mapping` as a dict and every sequence as a list."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value  # type: ignore[return-value]  # encode_frame refuses what is not plain


def encode_task(task: Task) -> Json:
    """`[id, data]`; tuples inside `data` arrive as lists."""
    check_plain(task.data, where=f"data of task {task.id!r}")
    return (task.id, plain(task.data))


def decode_task(value: Json) -> Task:
    """The task of `encode_task`."""
    match value:
        case [str(name), dict(data)]:
            return Task(name, data)
    raise FrameError(f"not a task: {_short(value)}")


def encode_observation(observation: Observation) -> Json:
    """One `[role, text]` per message, or `[role, [part, ...]]` where it is not one text."""
    return tuple([_encode_message(message) for message in observation])


def _encode_message(message: Message) -> Json:
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], Text):
        return (message.role, parts[0].text)
    return (message.role, tuple([_encode_part(part) for part in parts]))


def _encode_part(part: Text | Image) -> Json:
    if isinstance(part, Text):
        return part.text
    return (part.media_type, base64.b64encode(part.data).decode("ascii"))


def decode_observation(value: Json) -> Observation:
    """The observation of `encode_observation`."""
    if type(value) is not list:
        raise FrameError(f"not an observation: {_short(value)}")
    return tuple([_decode_message(message) for message in value])


def _decode_message(value: Json) -> Message:
    # Plain tests rather than `match`: this and decode_step are the client's hot path.
    if type(value) is list and len(value) == 2:
        role, content = value
        if type(role) is str:
            if type(content) is str:
                return Message(role, (Text(content),))
            if type(content) is list:
                return Message(role, tuple([_decode_part(part) for part in content]))
    raise FrameError(f"not a message: {_short(value)}")


def _decode_part(value: Json) -> Text | Image:
    match value:
        case str(text):
            return Text(text)
        case [str(media_type), str(data)]:
            try:
                return Image(media_type, base64.b64decode(data, validate=True))
            except binascii.Error as error:
                raise FrameError(f"an image's data is not base64: {error}") from error
    raise FrameError(f"not a part of a message: {_short(value)}")


def encode_step(result: StepResult) -> Json:
    """`[observation, reward, terminated + 2 * truncated, info]`; an empty info is None."""
    observation, reward, terminated, truncated, info = result
    flags = (1 if terminated else 0) + (2 if truncated else 0)
    return (encode_observation(observation), float(reward), flags, _encode_info(info))


def decode_step(value: Json) -> StepResult:
    """The result of `encode_step`."""
    if type(value) is list and len(value) == 4:
        observation, reward, flags, info = value
        if type(reward) is float and type(flags) is int and 0 <= flags <= 3:
            return StepResult(
                decode_observation(observation),
                reward,
                flags & 1 != 0,
                flags & 2 != 0,
                _NO_INFO if info is None else _decode_info(info),
            )
    raise FrameError(f"not the result of a step: {_short(value)}")


def _encode_info(info: StepInfo) -> Json:
    if not (
        info.rewards or info.tool_calls or info.malformed_calls or info.state_key or info.metrics
    ):
        return None
    for call in info.tool_calls:
        check_plain(call.arguments, where=f"arguments of a call of {call.name!r}")
    return (
        {name: float(value) for name, value in info.rewards.items()},
        [(call.name, plain(call.arguments), call.ok, call.seconds) for call in info.tool_calls],
        info.malformed_calls,
        info.state_key,
        {name: float(value) for name, value in info.metrics.items()},
    )


def _decode_info(value: Json) -> StepInfo:
    match value:
        case [dict(rewards), list(calls), int(malformed), str(state_key), dict(metrics)]:
            return StepInfo(
                rewards=_numbers(rewards),
                tool_calls=tuple([_decode_call(call) for call in calls]),
                malformed_calls=malformed,
                state_key=state_key,
                metrics=_numbers(metrics),
            )
    raise FrameError(f"not the info of a step: {_short(value)}")


def _numbers(values: Mapping[str, Json]) -> dict[str, float]:
    for name, value in values.items():
        if not isinstance(value, (int, float)):
            raise FrameError(f"{name!r} is {_short(value)}, not a number")
    return dict(values)  # type: ignore[arg-type]  # every value was checked above


def _decode_call(value: Json) -> ToolRecord:
    match value:
        case [str(name), dict(arguments), bool(ok), (int() | float()) as seconds]:
            return ToolRecord(name, arguments, ok, float(seconds))
    raise FrameError(f"not a tool call: {_short(value)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

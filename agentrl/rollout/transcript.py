"""Messages as ids for policies that speak text: bytes of UTF-8 and marks, without a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from agentrl.core.env import Observation
from agentrl.core.errors import ContractError
from agentrl.core.types import Image, Int32, Message, Text
from agentrl.rollout.images import DIGEST_BYTES, ImageStore
from agentrl.rollout.render import INLINE, StopRule

BYTES_PER_TOKEN: Final = 4
"""What a token is taken for where nobody has counted it."""

_ROLES: Final = ("system", "user", "assistant", "tool", INLINE)
_FIRST_MARK: Final = 256
SYSTEM, USER, ASSISTANT, TOOL, CONTINUED, OTHER, TEXT, IMAGE, THOUGHT, TOOLS, END, CUT = range(
    _FIRST_MARK, _FIRST_MARK + 12
)
"""Marks: a role (`OTHER` is followed by its name), a part of a message, tool schemas, and ends."""

_SHOWN: Final = {
    **{_FIRST_MARK + index: f"<|{role}|>\n" for index, role in enumerate(_ROLES)},
    OTHER: "<|",
    TEXT: "",
    IMAGE: "<|image ",
    THOUGHT: "<think>\n",
    TOOLS: "<|tools|>\n",
    END: "<|end|>\n",
    CUT: "",
}
_AFTER: Final = {OTHER: "|>\n", IMAGE: "|>", THOUGHT: "\n</think>\n\n"}


class Conversation(NamedTuple):
    """What a transcript's ids say: the messages so far and the schemas of the tools."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]


class Transcript:
    """The `Rendering` of a policy that has no tokenizer: chat servers, scripts.

    A text is the bytes of its UTF-8 (a lone surrogate as three bytes of its own), and everything
    else is an id above 255, which no text can spell: roles, parts of messages, tool schemas, the
    end of the policy's turn. So `conversation` gives back exactly the messages that went in, and a
    tree stores them as it stores tokens. Images are references by SHA-256 into `images`.

    An action is its thoughts, if the server tells them, its text, and `END` or, where it reached
    its limit, `CUT`. The environment reads its text alone, as the receiver of a reply does.

    An inline observation stays one (role "inline"): whether it goes on in the policy's own turn or
    opens one of the user's is the engine's to say, since most servers cannot continue a reply.

    Bytes are no tokens. The server's own counts come with its replies (`Completion.usage`); what
    nobody has counted yet is estimated at four bytes a token (`tokens_in`).
    """

    def __init__(self, images: ImageStore | None = None) -> None:
        """`images` keeps the contents of images; by default in memory."""
        self.images = images or ImageStore()

    @property
    def vocabulary_size(self) -> int:
        """Bytes and marks."""
        return CUT + 1

    def prompt_ids(
        self, observation: Observation, tool_schemas: Sequence[Mapping[str, object]] = ()
    ) -> Int32:
        """Ids (T,) of an episode's first observation, ending where the policy is to write."""
        pieces: list[bytes | int] = []
        if tool_schemas:
            pieces += [TOOLS, json.dumps(list(tool_schemas)).encode(), END]
        self._write(observation, pieces)
        return _ids([*pieces, ASSISTANT])

    def observation_ids(self, observation: Observation, action_ids: Sequence[int] | Int32) -> Int32:
        """Ids (O,) to append after `action_ids` and before the policy's next action."""
        ended = len(action_ids) > 0 and int(action_ids[-1]) in (END, CUT)
        pieces: list[bytes | int] = [] if ended else [END]
        self._write(observation, pieces)
        return _ids([*pieces, ASSISTANT])

    def action_ids(self, text: str, *, thought: str = "", cut: bool = False) -> Int32:
        """Ids (A,) of what the policy said, never empty: `cut` where it reached its limit."""
        pieces: list[bytes | int] = [THOUGHT, _bytes(thought)] if thought else []
        return _ids([*pieces, TEXT, _bytes(text), CUT if cut else END])

    def encode(self, text: str) -> Int32:
        """An action of `text`, without its end."""
        return _ids([TEXT, _bytes(text)])

    def action_text(self, action_ids: Int32) -> str:
        """What the policy said, without its thoughts and its end."""
        return "".join(_text(body) for mark, body in _segments(action_ids) if mark in (None, TEXT))

    def decode(self, token_ids: Sequence[int] | Int32) -> str:
        """Text for people, with marks that a text could spell too: never parse it."""
        shown = []
        for mark, body in _segments(np.asarray(token_ids, np.int32)):
            text = body[:DIGEST_BYTES].hex() if mark == IMAGE else _text(body)
            if mark is not None:
                text = _SHOWN.get(mark, "\ufffd") + text + _AFTER.get(mark, "")
            shown.append(text)
        return "".join(shown)

    def conversation(self, token_ids: Int32) -> Conversation:
        """The messages and tools of a context; the turn that the policy is to write is left out.

        Raises:
            ContractError: the ids are not of a transcript.
        """
        messages: list[Message] = []
        tools: list[Mapping[str, Any]] = []
        role: str | None = None
        parts: list[Text | Image] = []
        for mark, body in _segments(token_ids):
            if mark == TOOLS:
                tools += json.loads(body)
            elif mark == TEXT and role is not None:
                parts.append(Text(_text(body)))
            elif mark == IMAGE and role is not None:
                parts.append(self._image(body))
            elif mark in (END, CUT):
                if role is not None:
                    messages.append(Message(role, tuple(parts)))
                role, parts = None, []
            elif mark is not None and mark <= OTHER and role is None:
                role = _text(body) if mark == OTHER else _ROLES[mark - _FIRST_MARK]
            elif mark != THOUGHT:
                raise ContractError(f"no ids of a transcript: mark {mark} where none may stand")
        if role is not None and parts:
            messages.append(Message(role, tuple(parts)))
        return Conversation(tuple(messages), tuple(tools))

    def stop_for(self, strings: Sequence[str] = ()) -> StopRule:
        """All of them as strings; the end of a reply needs no mark."""
        return StopRule(tuple(strings), ())

    def tokens_in(self, ids: Int32) -> int:
        """An estimate at `BYTES_PER_TOKEN`, rounded up."""
        return -(-len(ids) // BYTES_PER_TOKEN)

    def _write(self, messages: Iterable[Message], pieces: list[bytes | int]) -> None:
        for message in messages:
            if message.role in _ROLES:
                pieces.append(_FIRST_MARK + _ROLES.index(message.role))
            else:
                pieces += [OTHER, _bytes(message.role)]
            for part in message.parts:
                if isinstance(part, Text):
                    pieces += [TEXT, _bytes(part.text)]
                else:
                    pieces += [IMAGE, self.images.put(part) + _bytes(part.media_type)]
            pieces.append(END)

    def _image(self, body: bytes) -> Image:
        return self.images.get(body[:DIGEST_BYTES], _text(body[DIGEST_BYTES:]))


def _ids(pieces: Sequence[bytes | int]) -> Int32:
    """One array of the bytes and marks."""
    sizes = [1 if isinstance(piece, int) else len(piece) for piece in pieces]
    ids = np.empty(sum(sizes), np.int32)
    at = 0
    for piece, size in zip(pieces, sizes, strict=True):
        ids[at : at + size] = (
            piece if isinstance(piece, int) else np.frombuffer(piece, dtype=np.uint8)
        )
        at += size
    return ids


def _segments(ids: Int32) -> list[tuple[int | None, bytes]]:
    """Each mark with the bytes after it; first, under None, those before any mark, if there are."""
    at = np.flatnonzero(ids >= _FIRST_MARK).tolist()
    marks = ids[at].tolist()
    raw = ids.astype(np.uint8).tobytes()  # a mark's byte is nonsense, and never looked at
    ends = [*at[1:], len(ids)][: len(at)]
    found: list[tuple[int | None, bytes]] = [
        (mark, raw[start + 1 : end]) for mark, start, end in zip(marks, at, ends, strict=True)
    ]
    before = at[0] if at else len(ids)
    return [(None, raw[:before]), *found] if before else found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # an action of another engine, cut inside a character
        return data.decode("utf-8", "replace")

"""The only door between messages and tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np

from agentrl.core.env import Observation
from agentrl.core.errors import ContractError, SetupError
from agentrl.core.types import Image, Int32, Message, Text

INLINE = "inline"
"""Role of a message that continues the policy's own turn verbatim."""

_MARK = "\u27e6mark\u27e7"
_PROMPTS_KEPT = 256

log = logging.getLogger(__name__)


class Encoding(Protocol):
    """What a fast tokenizer's core returns."""

    @property
    def ids(self) -> list[int]:
        """Token ids."""
        ...


class TokenizerCore(Protocol):
    """The part of `tokenizers.Tokenizer` that is used."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Encoding:
        """Tokens of `sequence`."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of `ids`."""
        ...

    def no_truncation(self) -> None:
        """Never cut."""
        ...

    def no_padding(self) -> None:
        """Never pad."""
        ...

    def get_added_tokens_decoder(self) -> Mapping[int, object]:
        """Added tokens by id."""
        ...


class Tokenizer(Protocol):
    """The part of `transformers.PreTrainedTokenizerFast` that is used."""

    @property
    def backend_tokenizer(self) -> TokenizerCore:
        """The core that encodes and decodes."""
        ...

    @property
    def chat_template(self) -> object:
        """The Jinja template, or None."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        ...

    def __len__(self) -> int:
        """Size of the vocabulary, added tokens included."""
        ...

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        tools: list[Mapping[str, object]] | None,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str:
        """The conversation as text."""
        ...


class StopRule(NamedTuple):
    """What ends an action; both kinds are kept in it."""

    strings: tuple[str, ...]
    token_ids: tuple[int, ...]


class Rendering(Protocol):
    """Between messages and the ids that trees record: a tokenizer's, or a transcript's."""

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        ...

    def prompt_ids(
        self, observation: Observation, tool_schemas: Sequence[Mapping[str, object]] = ()
    ) -> Int32:
        """Ids (T,) of an episode's first observation, ending where the policy is to write."""
        ...

    def observation_ids(self, observation: Observation, action_ids: Sequence[int] | Int32) -> Int32:
        """Ids (O,) to append after `action_ids` and before the policy's next action."""
        ...

    def decode(self, token_ids: Sequence[int] | Int32) -> str:
        """Text of `token_ids` for people, marks included."""
        ...

    def action_text(self, action_ids: Int32) -> str:
        """What the policy said, as its environment reads it."""
        ...

    def encode(self, text: str) -> Int32:
        """Ids of text that a script writes in the policy's place."""
        ...

    def stop_for(self, strings: Sequence[str] = ()) -> StopRule:
        """How an engine is told to stop at `strings` and at the end of the policy's turn."""
        ...

    def tokens_in(self, ids: Int32) -> int:
        """Tokens that `ids` are, or an estimate where only the server counts them."""
        ...


class _Frame(NamedTuple):
    """Template text around the contents of some messages that follow an assistant's turn."""

    pieces: tuple[str, ...]
    any_edge: bool  # False: holds only for contents without white space at their ends


class Renderer:
    """Messages to tokens and back, for one tokenizer and its chat template.

    A prompt is rendered once. Afterwards tokens are only ever appended: what the template adds
    after an assistant's turn, computed from a dummy conversation, so that nothing that was
    sampled is encoded again. With a template that rewrites history (`rewrites_history`: dropping
    past thinking, say) the policy therefore sees its past turns as it sampled them, in training
    and in evaluation alike, which differs from what such a template would show it.

    Text of an environment that spells a special token becomes that token, in every role.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        try:
            self._core = tokenizer.backend_tokenizer
        except AttributeError:
            raise SetupError(
                f"{type(tokenizer).__name__} is not a fast tokenizer; load the model's with "
                "AutoTokenizer.from_pretrained(..., use_fast=True)"
            ) from None
        self._core.no_truncation()
        self._core.no_padding()
        self._prompts: dict[tuple[Observation, str], Int32] = {}
        self._frames: dict[tuple[str, ...], _Frame | None] = {}
        self._stops: dict[tuple[str, ...], StopRule] = {}
        self._end_text = ""
        self._end_ids: frozenset[int] = frozenset()
        self.rewrites_history = False
        if tokenizer.chat_template is not None:
            self._read_template()
        eos = tokenizer.eos_token_id
        self._last_ids = self._end_ids | (frozenset() if eos is None else {eos})

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added ones included."""
        return len(self._tokenizer)

    def prompt_ids(
        self, observation: Observation, tool_schemas: Sequence[Mapping[str, object]] = ()
    ) -> Int32:
        """Tokens (T,) of an episode's first observation, ending where the policy is to write.

        Messages go through the chat template with its generation prompt; inline messages after
        them start the policy's turn for it. An observation of inline messages alone is the whole
        prompt, without any template.
        """
        key = (observation, json.dumps(tool_schemas, sort_keys=True) if tool_schemas else "")
        ids = self._prompts.get(key)
        if ids is None:
            chat = [message for message in observation if message.role != INLINE]
            text = self._render(chat, tool_schemas, generation=True) if chat else ""
            text += "".join(_text(item) for item in observation if item.role == INLINE)
            if list(observation[: len(chat)]) != chat:
                raise ContractError("inline messages of a first observation stand after the others")
            ids = self._encode(text)
            ids.setflags(write=False)
            if len(self._prompts) >= _PROMPTS_KEPT:
                self._prompts.clear()
            self._prompts[key] = ids
        return ids

    def observation_ids(self, observation: Observation, action_ids: Sequence[int] | Int32) -> Int32:
        """Tokens (O,) to append after `action_ids` and before the policy's next action.

        Inline messages are encoded verbatim. Others close the policy's turn (with the template's
        end-of-turn token, unless the action ended with it) and open the next one.
        """
        if not observation:
            return np.zeros(0, np.int32)
        ended = len(action_ids) > 0 and int(action_ids[-1]) in self._end_ids
        pieces: list[str] = []
        for inline, run in groupby(observation, lambda message: message.role == INLINE):
            messages = list(run)
            if inline:
                pieces += [_text(message) for message in messages]
            else:
                pieces.append(self._after_turn(messages, ended=ended))
            ended = False
        return self._encode("".join(pieces))

    def decode(self, token_ids: Sequence[int] | Int32) -> str:
        """Text of `token_ids`, special tokens included."""
        return self._core.decode(
            token_ids.tolist() if isinstance(token_ids, np.ndarray) else list(token_ids),
            skip_special_tokens=False,
        )

    def action_text(self, action_ids: Int32) -> str:
        """What the policy said: `action_ids` decoded without the token that ended its turn."""
        ids: list[int] = action_ids.tolist()
        if ids and ids[-1] in self._last_ids:
            ids.pop()
        return self._core.decode(ids, skip_special_tokens=False)

    def encode(self, text: str) -> Int32:
        """Tokens of text that a script, not the policy, writes in the policy's place."""
        return self._encode(text)

    def stop_for(self, strings: Sequence[str] = ()) -> StopRule:
        """How an engine is told to stop at `strings`, at the end of turn and at the end of text.

        A string that is one added token of the vocabulary becomes a stop token, which costs the
        engine nothing. One that is an ordinary token stays a string, since a policy can spell it
        with other tokens too.
        """
        key = tuple(strings)
        if key not in self._stops:
            added = self._core.get_added_tokens_decoder()
            texts: list[str] = []
            ids = set(self._last_ids)
            for string in key:
                encoded = self._core.encode(string, add_special_tokens=False).ids
                if len(encoded) == 1 and encoded[0] in added:
                    ids.add(encoded[0])
                else:
                    texts.append(string)
            self._stops[key] = StopRule(tuple(texts), tuple(sorted(ids)))
        return self._stops[key]

    def tokens_in(self, ids: Int32) -> int:
        """Their number."""
        return len(ids)

    def _encode(self, text: str) -> Int32:
        return np.asarray(self._core.encode(text, add_special_tokens=False).ids, np.int32)

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] = (),
        *,
        generation: bool,
    ) -> str:
        if self._tokenizer.chat_template is None:
            raise SetupError(
                "the tokenizer has no chat template, so messages of role "
                f"{messages[0].role!r} cannot be shown to this model; give it a template, take an "
                "instruction-tuned model, or let the environment speak in 'inline' messages"
            )
        turns = [{"role": message.role, "content": _text(message)} for message in messages]
        try:
            return self._tokenizer.apply_chat_template(
                turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=generation
            )
        except Exception as error:  # a template raises what it likes
            raise SetupError(
                f"the chat template refuses messages of roles "
                f"{', '.join(turn['role'] for turn in turns)}: {error}"
            ) from error

    def _read_template(self) -> None:
        """Find how the template closes an assistant's turn and whether it rewrites past ones."""
        asked, said = Message.of("user", "u"), Message.of("assistant", _MARK)
        ids = self._encode(self._render([asked, said], generation=False).rpartition(_MARK)[2])
        added = self._core.get_added_tokens_decoder()
        if len(ids) and int(ids[0]) in added:
            self._end_ids = frozenset({int(ids[0])})
            self._end_text = self.decode(ids[:1])
        thought = Message.of("assistant", "<think>\nwhy\n</think>\n\nsaid")
        before = self._render([asked, thought], generation=False)
        after = self._render([asked, thought, asked], generation=False)
        self.rewrites_history = not after.startswith(before)
        if self.rewrites_history:
            log.info(
                "the chat template rewrites past assistant turns; they are kept as sampled, and "
                "only what the template adds after each turn is used"
            )

    def _after_turn(self, messages: Sequence[Message], *, ended: bool) -> str:
        """Template text from the end of an assistant's content to its next generation prompt."""
        texts = [_text(message) for message in messages]
        roles = tuple(message.role for message in messages)
        if roles not in self._frames:
            self._frames[roles] = self._frame(roles)
        frame = self._frames[roles]
        if frame is not None and (frame.any_edge or all(text == text.strip() for text in texts)):
            parts = [frame.pieces[0]]
            for text, piece in zip(texts, frame.pieces[1:], strict=True):
                parts += (text, piece)
            added = "".join(parts)
        else:
            added = self._suffix(messages)
        return added.removeprefix(self._end_text) if ended else added

    def _suffix(self, messages: Sequence[Message]) -> str:
        dummy = [Message.of("user", "u"), Message.of("assistant", _MARK), *messages]
        _, found, suffix = self._render(dummy, generation=True).partition(_MARK)
        if not found:
            raise ContractError("the chat template drops or changes the text of assistant turns")
        return suffix

    def _frame(self, roles: tuple[str, ...]) -> _Frame | None:
        """The constant text around contents, or None where the template looks into them."""
        if "assistant" in roles:
            return None
        marks = [f"\u27e6{index}\u27e7" for index in range(len(roles))]
        rest = self._suffix([Message.of(*pair) for pair in zip(roles, marks, strict=True)])
        pieces = []
        for mark in marks:
            piece, found, rest = rest.partition(mark)
            if not found:
                return None
            pieces.append(piece)
        pieces.append(rest)
        edges = []
        for edge in ("", " \n"):
            body = "<a href='x'>\"1\" & {{ b }}\n\n<think>\u00e9</think> \\n</a>"
            probe = f"{edge}{body}{edge}"
            built = pieces[0] + "".join(probe + piece for piece in pieces[1:])
            edges.append(built == self._suffix([Message.of(role, probe) for role in roles]))
        return _Frame(tuple(pieces), edges[1]) if edges[0] else None


def _text(message: Message) -> str:
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    if any(isinstance(part, Image) for part in parts):
        raise ContractError(
            f"a message of role {message.role!r} holds an image; this renderer is for text"
        )
    return message.text

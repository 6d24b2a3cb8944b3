"""Any OpenAI-compatible chat server, for evaluation: messages out, a message back."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from agentrl.core.errors import ContextLengthError, EngineError
from agentrl.core.types import EntropyKind, Float32, Int32
from agentrl.engine.base import Completion, FinishReason, Sampling, Usage
from agentrl.engine.chat_messages import action_of, calls_of, request_of, with_stop, words_of
from agentrl.engine.distribution import top_k_entropy
from agentrl.engine.http import SHOWN, ModelServer, RefusedError
from agentrl.engine.settings import ChatSettings
from agentrl.rollout.transcript import TEXT, Transcript

_STOPS = 4  # as many as OpenAI's API takes; what it was not told is looked for in its reply
_ENDED = frozenset({"stop", "tool_calls", "function_call", "content_filter", "end_turn", "eos"})
_LIMIT = re.compile(r"(?:context length(?: is|:| of)? (?:only )?|max_model_len=)(\d+)")
_ASKED = re.compile(r"(\d+) (?:input tokens|tokens from the input|in the messages)")


class ChatEngine:
    """`POST {base_url}/chat/completions`, once for each turn (`agentrl.engine.http` on failures).

    A prompt is a `Transcript`'s ids, and so is the action. It is the reply as its receiver reads
    it: text with the stop string that ended it, native calls in the text form of the environments
    (`agentrl.core.formats`, json). Thoughts that the server tells apart are recorded, not played
    and not sent back. A refusal is what the policy said; so is what a content filter leaves, since
    the filter is part of the policy that is served. A reply that is none is an `EngineError`.

    Tokens are counted by the server's `usage`, and estimated at four bytes where it sends none.
    Log-probabilities, where asked for and given, stand at the first byte of each token, 0 at its
    others, so that sums are the action's; the same holds for its top-k entropies.
    """

    def __init__(
        self,
        settings: ChatSettings,
        model: str = "",
        *,
        transcript: Transcript | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._model = settings.model or model
        self._transcript = transcript or Transcript()
        self._server = ModelServer(settings, transport=transport)

    @property
    def version(self) -> int:
        """Always 0: a remote server keeps its weights."""
        return 0

    async def start(self) -> None:
        """Open the connections; the server is first met by a request."""
        await self._server.open()

    def admission(self, prompt_ids: Int32, sampling: Sampling) -> AbstractAsyncContextManager[None]:
        """Entered when the request may be sent (see `agentrl.engine.base.Paced`)."""
        return self._server.admission(self._cost(prompt_ids, sampling))

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """The reply to the conversation of `prompt_ids`."""
        ids = np.asarray(prompt_ids, np.int32)
        body, cost = self._body(ids, sampling), self._cost(ids, sampling)
        started = time.perf_counter()
        room = sampling.max_tokens
        while True:
            try:
                reply = await self._post(body, cost)
                break
            except ContextLengthError as error:
                # A prompt that fits, refused for a reply that may be longer than what it leaves.
                left = _room(str(error), self._transcript.tokens_in(ids))
                if not 0 < left < room:
                    raise
                body[self._settings.max_tokens_field] = room = left
        read = _Reply(reply, self._transcript, sampling)
        return read.completion(prompt_ids=ids, seconds=time.perf_counter() - started)

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Not offered: a chat server tells nothing about other people's words."""
        raise EngineError("a chat engine cannot score tokens; use transformers or vllm")

    async def load(self, weights: Path, version: int) -> None:
        """Refused: nothing can be put into somebody else's server."""
        raise EngineError(
            "a chat engine cannot be trained: a remote server keeps its own weights. "
            "Use engine.type vllm or transformers"
        )

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        await self._server.close()

    def _cost(self, ids: Sequence[int] | Int32, sampling: Sampling) -> int:
        return self._transcript.tokens_in(np.asarray(ids)) + sampling.max_tokens

    def _body(self, ids: Int32, sampling: Sampling) -> dict[str, Any]:
        settings = self._settings
        messages, tools = self._transcript.conversation(ids)
        native = settings.tools == "native"
        request = request_of(messages, tools, native=native, inline=settings.inline)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": request.messages,
            settings.max_tokens_field: sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.top_p < 1.0:
            body["top_p"] = sampling.top_p
        if sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if sampling.stop:
            body["stop"] = list(sampling.stop[:_STOPS])
        if sampling.seed is not None:
            body["seed"] = sampling.seed % (1 << 31)
        if tools and native:
            body["tools"] = list(tools)
        if settings.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
        if request.continued:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        for name in settings.omit:
            body.pop(name, None)
        return body | settings.extra

    async def _post(self, body: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        try:
            return await self._server.post("/chat/completions", body, tokens=tokens)
        except RefusedError as error:
            if error.status in (400, 422) and (hint := self._hint(error.body, body)):
                raise RefusedError(f"{error} ({hint})", error.status, error.body) from error
            raise

    def _hint(self, said: str, body: Mapping[str, Any]) -> str:
        if "max_completion_tokens" in said and self._settings.max_tokens_field == "max_tokens":
            return "set engine.max_tokens_field to max_completion_tokens"
        if "tool" in said and "tools" in body:
            return "a server that takes no tools needs engine.tools: text"
        named = [name for name in body if name not in ("model", "messages") and name in said]
        return f"engine.omit: [{named[0]}] leaves that field out" if named else ""


class _Words(NamedTuple):
    """What a reply says: its text, calls included, and its thoughts."""

    text: str
    thought: str


class _Reply:
    """One reply of the server, read with every expectation checked."""

    def __init__(
        self, reply: Mapping[str, Any], transcript: Transcript, sampling: Sampling
    ) -> None:
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise EngineError(f"a reply needs choices, the server sent {str(reply)[:SHOWN]}")
        self._choice: Mapping[str, Any] = choices[0]
        message = self._choice.get("message")
        if not isinstance(message, dict):
            raise EngineError(f"a choice needs a message, the server sent {str(reply)[:SHOWN]}")
        self._message: Mapping[str, Any] = message
        usage = reply.get("usage")
        self._usage: Mapping[str, Any] = usage if isinstance(usage, dict) else {}
        self._transcript = transcript
        self._sampling = sampling

    def completion(self, *, prompt_ids: Int32, seconds: float) -> Completion:
        """The reply as an action."""
        reason = self._reason()
        words = self._words(reason)
        ids = self._transcript.action_ids(words.text, thought=words.thought, cut=reason == "length")
        logprobs, entropies, kind = self._numbers(ids)
        usage = Usage(
            _count(self._usage, "prompt_tokens", self._transcript.tokens_in(prompt_ids)),
            _count(self._usage, "completion_tokens", self._transcript.tokens_in(ids)),
        )
        details = self._usage.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens", 0) if isinstance(details, dict) else 0
        return Completion(
            token_ids=ids,
            logprobs=logprobs,
            entropies=entropies,
            entropy_kind=kind,
            finish_reason=reason,
            policy_version=0,
            prefilled_tokens=max(usage.prompt_tokens - cached, 0),
            seconds=seconds,
            usage=usage,
        )

    def _reason(self) -> FinishReason:
        reason = self._choice.get("finish_reason")
        if reason in ("length", "max_tokens"):
            return "length"
        if reason in _ENDED:
            return "stop"
        said = str(dict(self._choice))[:SHOWN]
        raise EngineError(f"a reply ended with {reason!r}, not by itself or a limit: {said}")

    def _words(self, reason: FinishReason) -> _Words:
        message, choice = self._message, self._choice
        content, thought = words_of(message.get("content"), choice)
        for name in ("reasoning_content", "reasoning"):
            told = message.get(name)
            if isinstance(told, str) and not thought:
                thought = told
        calls = calls_of(message)
        refusal = message.get("refusal")
        if not content and isinstance(refusal, str):
            content = refusal
        filtered = choice.get("finish_reason") == "content_filter"
        nothing = message.get("content") is None and not (calls or content or thought)
        if nothing and not filtered and reason == "stop":
            raise EngineError(f"a reply without content: the server sent {str(choice)[:SHOWN]}")
        told = "stop_reason" in choice or "matched_stop" in choice
        text = with_stop(
            content,
            self._sampling.stop,
            ended=reason == "stop" and not filtered and not calls,
            matched=choice.get("stop_reason", choice.get("matched_stop")),
            told=told,
        )
        return _Words(action_of(text, calls), thought)

    def _numbers(self, ids: Int32) -> tuple[Float32, Float32, EntropyKind]:
        """Log-probabilities and entropies (A,), nan where the server gives none for these bytes."""
        unknown = np.full(len(ids), np.nan, np.float32)
        given = self._choice.get("logprobs")
        tokens = given.get("content") if isinstance(given, dict) else None
        starts = np.flatnonzero(ids == TEXT) + 1
        if not isinstance(tokens, list) or not tokens or len(starts) != 1:
            return unknown, unknown.copy(), "none"
        logprobs = np.zeros(len(ids), np.float32)
        entropies = np.zeros(len(ids), np.float32)
        said = bytearray()
        for token in tokens:
            piece, logprob, entropy = _token(token)
            at = int(starts[0]) + len(said)
            if at < len(ids) - 1:
                logprobs[at], entropies[at] = logprob, entropy
            said += piece
        # They may go on after the text, with a stop string's rest or the end of the turn.
        if not said.startswith(ids[starts[0] : -1].astype(np.uint8).tobytes()):
            return unknown, unknown.copy(), "none"
        if np.isnan(entropies).any():
            return logprobs, unknown, "none"
        return logprobs, entropies, "top_k"


def _token(token: Any) -> tuple[bytes, float, float]:
    """Bytes, log-probability and top-k entropy (nan: unknown) of one token of a reply."""
    try:
        given, text = token.get("bytes"), str(token["token"])
        piece = text.encode("utf-8", "surrogatepass") if given is None else bytes(given)
        tops = token.get("top_logprobs") or []
        named = {str(index): float(one["logprob"]) for index, one in enumerate(tops)}
        return piece, float(token["logprob"]), top_k_entropy(named)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = f"a token needs a log-probability, the server sent {token!r:.300}"
        raise EngineError(said) from error


def _count(usage: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else otherwise


def _room(said: str, estimate: int) -> int:
    """Tokens that a context of which a server complains has left for a reply; 0: it says not.

    `estimate` is the length of the prompt, where the server has not counted it.
    """
    limit, asked = _LIMIT.search(said), _ASKED.search(said)
    return max(int(limit[1]) - (int(asked[1]) if asked else estimate), 0) if limit else 0

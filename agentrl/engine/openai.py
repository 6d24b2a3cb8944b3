"""Any OpenAI-compatible completion server, for evaluation and methods without training."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from agentrl.core.errors import EngineError
from agentrl.core.types import EntropyKind, Float32, Int32
from agentrl.engine.base import Completion, FinishReason, Sampling
from agentrl.engine.distribution import top_k_entropy
from agentrl.engine.http import SHOWN, ModelServer, RefusedError
from agentrl.engine.settings import OpenAISettings
from agentrl.engine.tokens import Tokenizer, load_tokenizer


class OpenAIEngine:
    """`POST {base_url}/completions` with the exact tokens (`agentrl.engine.http` on failures).

    Where the server returns token ids (vLLM, SGLang) they are used as they are. Elsewhere the text
    is encoded by the policy's tokenizer, which may cut it differently than the server did: good
    for evaluation, not for training, and then log-probabilities are nan. A server's own are taken
    as they are; vLLM computes them before temperature unless it was started with
    `--logprobs-mode processed_logprobs`. Entropies are top-k
    (a lower bound that treats the rest of the vocabulary as one token) or nan ("none").
    """

    def __init__(
        self,
        settings: OpenAISettings,
        model: str,
        *,
        tokenizer: Tokenizer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._policy = model
        self._tokenizer = tokenizer
        self._server = ModelServer(settings, transport=transport)

    @property
    def version(self) -> int:
        """Always 0: a remote server keeps its weights."""
        return 0

    async def start(self) -> None:
        """Load the tokenizer and open the connections; the server is first met by a request."""
        if self._tokenizer is None:
            self._tokenizer = await asyncio.to_thread(load_tokenizer, self._policy)
        await self._server.open()

    def admission(self, prompt_ids: Int32, sampling: Sampling) -> AbstractAsyncContextManager[None]:
        """Entered when the request may be sent (see `agentrl.engine.base.Paced`)."""
        return self._server.admission(len(prompt_ids) + sampling.max_tokens)

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """Continue `prompt_ids`."""
        settings, tokenizer = self._settings, self._started()
        ids: list[int] = np.asarray(prompt_ids).tolist()
        as_text = settings.prompt == "text"
        body: dict[str, object] = {
            "model": settings.model or self._policy,
            "prompt": tokenizer.decode(ids, skip_special_tokens=False) if as_text else ids,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "logprobs": settings.top_logprobs,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed % (1 << 63)
        if not as_text:  # what vLLM and SGLang understand beyond OpenAI's fields
            body |= {
                "stop_token_ids": list(sampling.stop_token_ids),
                "top_k": sampling.top_k or -1,
                "include_stop_str_in_output": True,
                "ignore_eos": True,
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
                "skip_special_tokens": False,
                "add_special_tokens": False,
            }
        started = time.perf_counter()
        try:
            reply = await self._server.post(
                "/completions", body | settings.extra, tokens=len(ids) + sampling.max_tokens
            )
        except RefusedError as error:
            if error.status == 400 and not as_text:
                hint = "a server that takes no token ids needs engine.prompt: text"
                raise RefusedError(f"{error} ({hint})", error.status, error.body) from error
            raise
        completion = _Reply(reply, tokenizer, sampling)
        return completion.read(prefilled=len(ids), seconds=time.perf_counter() - started)

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Not offered: `prompt_logprobs` is not part of the common interface."""
        raise EngineError("an openai engine cannot score tokens; use transformers or vllm")

    async def load(self, weights: Path, version: int) -> None:
        """Refused: nothing can be put into somebody else's server."""
        raise EngineError(
            "an openai engine cannot be trained: a remote server keeps its own weights. "
            "Use engine.type vllm or transformers"
        )

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        await self._server.close()

    def _started(self) -> Tokenizer:
        if self._tokenizer is None:
            raise EngineError("the openai engine was not started; call start()")
        return self._tokenizer


class _Reply:
    """One reply of the server, read with every expectation checked."""

    def __init__(self, reply: Mapping[str, Any], tokenizer: Tokenizer, sampling: Sampling) -> None:
        self._tokenizer = tokenizer
        self._sampling = sampling
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise EngineError(f"a completion needs choices, the server sent {str(reply)[:SHOWN]}")
        self._choice: Mapping[str, Any] = choices[0]
        self._usage: Mapping[str, Any] = reply.get("usage") or {}

    def read(self, *, prefilled: int, seconds: float) -> Completion:
        """The completion, for a prompt of `prefilled` tokens."""
        token_ids, exact = self._tokens()
        logprobs, entropies, kind = self._numbers(len(token_ids), exact)
        details = self._usage.get("prompt_tokens_details") or {}
        cached = int(details.get("cached_tokens") or 0)
        return Completion(
            token_ids=np.asarray(token_ids, np.int32),
            logprobs=logprobs,
            entropies=entropies,
            entropy_kind=kind,
            finish_reason=self._reason(),
            policy_version=0,
            prefilled_tokens=max(prefilled - cached, 0),
            seconds=seconds,
        )

    def _reason(self) -> FinishReason:
        reason = self._choice.get("finish_reason")
        if reason in ("stop", "length"):
            return "stop" if reason == "stop" else "length"
        raise EngineError(f"a completion ended with {reason!r}, neither 'stop' nor 'length'")

    def _tokens(self) -> tuple[list[int], bool]:
        """Token ids, and whether they are the server's own."""
        given = self._choice.get("token_ids")
        if given is not None:
            if not isinstance(given, list) or not all(isinstance(one, int) for one in given):
                raise EngineError(f"token_ids must be integers, the server sent {given!r:.300}")
            return given, True
        text = self._choice.get("text")
        if not isinstance(text, str):
            raise EngineError(f"a completion needs text, the server sent {text!r:.300}")
        stopped_at = self._choice.get("stop_reason")
        if stopped_at in self._sampling.stop and not text.endswith(str(stopped_at)):
            text += str(stopped_at)  # this interface cuts the stop string off; a turn keeps it
        return self._tokenizer.encode(text, add_special_tokens=False), False

    def _numbers(self, count: int, exact: bool) -> tuple[Float32, Float32, EntropyKind]:
        """Log-probabilities and entropies (count,), nan where the server gives none that fit."""
        unknown = np.full(count, np.nan, np.float32)
        given = self._choice.get("logprobs") or {}
        taken = given.get("token_logprobs")
        if not exact or taken is None:
            return unknown, unknown.copy(), "none"
        if len(taken) != count:
            raise EngineError(f"{count} tokens came with {len(taken)} log-probabilities")
        logprobs = np.asarray([np.nan if one is None else one for one in taken], np.float32)
        tops = given.get("top_logprobs")
        if not tops or len(tops) != count:
            return logprobs, unknown, "none"
        return (
            logprobs,
            np.asarray([top_k_entropy(one or {}) for one in tops], np.float32),
            "top_k",
        )

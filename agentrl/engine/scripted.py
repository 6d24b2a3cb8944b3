"""Engines without a model: a Python function in the policy's place, or chance."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from agentrl.core.errors import EngineError
from agentrl.core.types import Float32, Int32
from agentrl.engine.base import Completion, FinishReason, Sampling, Usage
from agentrl.engine.tokens import Tokenizer
from agentrl.rollout.transcript import BYTES_PER_TOKEN, Transcript

Script: TypeAlias = Callable[[str], str | Awaitable[str]]
"""The text of the context -> the text of the action, stop marks included."""

Latency: TypeAlias = Callable[[], float]
"""Seconds that the next completion takes."""


def log_normal_latency(
    mean: float, *, sigma: float = 1.0, cap: float = math.inf, seed: int = 0
) -> Latency:
    """Log-normal delays with this mean before the cut at `cap`, in the order of the calls."""
    rng = np.random.default_rng(seed)
    location = math.log(mean) - sigma**2 / 2
    return lambda: min(float(rng.lognormal(location, sigma)), cap)


class _ModelFree:
    """What the two have in common: no start, no weights, a delay, a version."""

    def __init__(self, latency: Latency | None) -> None:
        self._latency = latency
        self._version = 0

    @property
    def version(self) -> int:
        """Version told by the last `load`."""
        return self._version

    async def start(self) -> None:
        """Nothing to load."""

    async def load(self, weights: Path, version: int) -> None:
        """Take the version; there is nothing to put the weights into."""
        self._version = version

    async def close(self) -> None:
        """Nothing to free."""

    async def _delay(self) -> None:
        await asyncio.sleep(self._latency() if self._latency else 0.0)


class ScriptedEngine(_ModelFree):
    """Says what `script` says, in the tokens of `tokenizer`.

    A deterministic script gives its tokens probability 1: log-probabilities and entropies are 0,
    and `entropy_kind` is "none" since no branching may be decided by them. An action longer than
    `max_tokens` is cut (finish reason "length"). A script that raises is an `EngineError`.
    """

    def __init__(
        self, script: Script, tokenizer: Tokenizer, *, latency: Latency | None = None
    ) -> None:
        super().__init__(latency)
        self._script = script
        self._tokenizer = tokenizer

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """What the script answers to the decoded prompt."""
        started = time.perf_counter()
        context = self._tokenizer.decode(np.asarray(prompt_ids).tolist(), skip_special_tokens=False)
        await self._delay()
        text = await _said(self._script, context)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        reason: FinishReason = "stop" if len(ids) <= sampling.max_tokens else "length"
        token_ids = np.asarray(ids[: sampling.max_tokens], np.int32)
        return Completion(
            token_ids=token_ids,
            logprobs=np.zeros(len(token_ids), np.float32),
            entropies=np.zeros(len(token_ids), np.float32),
            entropy_kind="none",
            finish_reason=reason,
            policy_version=self._version,
            prefilled_tokens=len(prompt_ids),
            seconds=time.perf_counter() - started,
        )

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """A script has no distribution over other people's tokens."""
        raise EngineError("a scripted engine cannot score tokens; use transformers or vllm")


class TranscriptScript(_ModelFree):
    """Says what `script` says in a `Transcript`: a policy without a model and its tokenizer.

    Like a `ScriptedEngine` otherwise. There are no tokens to count: usage is the transcript's
    estimate, and an action is cut where that reaches `max_tokens`.
    """

    def __init__(
        self,
        script: Script,
        transcript: Transcript | None = None,
        *,
        latency: Latency | None = None,
    ) -> None:
        super().__init__(latency)
        self._script = script
        self._transcript = transcript or Transcript()

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """What the script answers to the conversation as text."""
        started = time.perf_counter()
        transcript, ids = self._transcript, np.asarray(prompt_ids, np.int32)
        context = transcript.decode(ids)
        await self._delay()
        text = await _said(self._script, context)
        room = sampling.max_tokens * BYTES_PER_TOKEN
        said = text.encode("utf-8", "surrogatepass")
        cut = len(said) > room
        token_ids = transcript.action_ids(
            said[:room].decode("utf-8", "ignore") if cut else text, cut=cut
        )
        generated = min(transcript.tokens_in(token_ids), sampling.max_tokens)
        usage = Usage(transcript.tokens_in(ids), generated)
        return Completion(
            token_ids=token_ids,
            logprobs=np.zeros(len(token_ids), np.float32),
            entropies=np.zeros(len(token_ids), np.float32),
            entropy_kind="none",
            finish_reason="length" if cut else "stop",
            policy_version=self._version,
            prefilled_tokens=usage.prompt_tokens,
            seconds=time.perf_counter() - started,
            usage=usage,
        )

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """A script has no distribution over other people's words."""
        raise EngineError("a scripted engine cannot score tokens; use transformers or vllm")


async def _said(script: Script, context: str) -> str:
    try:
        said = script(context)
        return await said if inspect.isawaitable(said) else said
    except Exception as error:
        raise EngineError(f"the script failed on {context[-80:]!r}: {error}") from error


class RandomEngine(_ModelFree):
    """Every token of the vocabulary equally likely; seeded like any other engine."""

    def __init__(self, vocab_size: int, *, seed: int = 0, latency: Latency | None = None) -> None:
        super().__init__(latency)
        self._vocab_size = vocab_size
        self._rng = np.random.default_rng(seed)

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """Uniform tokens up to a stop token or `max_tokens`; stop strings are not looked for."""
        started = time.perf_counter()
        await self._delay()
        rng = self._rng if sampling.seed is None else np.random.default_rng(abs(sampling.seed))
        drawn = rng.integers(0, self._vocab_size, sampling.max_tokens)
        stops = np.flatnonzero(np.isin(drawn, sampling.stop_token_ids))
        token_ids = drawn[: stops[0] + 1] if len(stops) else drawn
        entropy = math.log(self._vocab_size)
        return Completion(
            token_ids=token_ids.astype(np.int32),
            logprobs=np.full(len(token_ids), -entropy, np.float32),
            entropies=np.full(len(token_ids), entropy, np.float32),
            entropy_kind="exact",
            finish_reason="stop" if len(stops) else "length",
            policy_version=self._version,
            prefilled_tokens=len(prompt_ids),
            seconds=time.perf_counter() - started,
        )

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """The same for every token."""
        return np.full(max(len(token_ids) - 1, 0), -math.log(self._vocab_size), np.float32)

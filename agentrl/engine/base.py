"""What every engine offers: tokens in, tokens out, with log-probabilities, entropy and version."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from agentrl.core.types import EntropyKind, Float32, Int32

FinishReason: TypeAlias = Literal["stop", "length", "segment"]
"""Engines say "stop" or "length"; an episode says "segment" where the action goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample; means the same in the engine and in the learner's log-probabilities.

    `stop` strings and `stop_token_ids` end the completion and are kept in it. `seed` makes the
    completion a function of the prompt, the weights and the seed. Nothing else ends it, not even
    the tokenizer's end token. `temperature` 0 is greedy; log-probabilities and entropies are then
    those at temperature 1, unfiltered.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None


class Usage(NamedTuple):
    """Tokens of one completion in the server's own count: its whole prompt, and what it sampled."""

    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine sampled.

    Per-token arrays are (A,): log-probabilities under, and entropies in nats of, the distribution
    that was sampled from (after temperature). Where `token_ids` are no tokens (a transcript's
    bytes), `usage` has the number of tokens, and limits count by it. `policy_version` is that of
    the weights that sampled the first token; where new weights came in the middle, `versions` (A,)
    has that of each token and is None otherwise.
    """

    token_ids: Int32
    logprobs: Float32
    entropies: Float32
    entropy_kind: EntropyKind
    finish_reason: FinishReason
    policy_version: int
    prefilled_tokens: int
    seconds: float
    usage: Usage | None = None
    versions: Int32 | None = None

    @property
    def generated_tokens(self) -> int:
        """Tokens that were sampled."""
        return len(self.token_ids) if self.usage is None else self.usage.generated_tokens


@runtime_checkable
class Engine(Protocol):
    """Serves one policy. Cancelling the task that awaits `generate` cancels the request.

    A `load` waits for no completion: those on their way go on from their tokens so far under the
    new weights, every token with the log-probability of the weights that sampled it, and nothing
    that the old weights computed (a prefix cache, say) is used any more.
    Any failure is an `EngineError`; a context that is full is a `ContextLengthError`. `version` is
    the number of syncs so far.
    """

    @property
    def version(self) -> int:
        """Version of the weights that the engine holds."""
        ...

    async def start(self) -> None:
        """Load the model; until then nothing else may be called."""
        ...

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """Continue `prompt_ids`."""
        ...

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Log-probabilities (T-1,) of tokens 1.. given those before them, at temperature 1."""
        ...

    async def load(self, weights: Path, version: int) -> None:
        """Take the weights of a safetensors file (hub names), between two tokens of any request."""
        ...

    async def close(self) -> None:
        """Free everything; may be called twice."""
        ...


@runtime_checkable
class Paced(Protocol):
    """An engine whose server is asked only so often: the wait for it is no part of a deadline."""

    def admission(self, prompt_ids: Int32, sampling: Sampling) -> AbstractAsyncContextManager[None]:
        """Entered when the request may be sent; the caller's `generate` inside it does not wait."""
        ...

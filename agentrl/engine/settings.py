"""What a recipe says about its engine; imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, field_validator

from agentrl.core.settings import Settings

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]


class VllmSettings(Settings):
    """vLLM in this process, by its GPU or its CPU package.

    `dtype` `"auto"` is float32 on a CPU and the checkpoint's own on a GPU. `max_model_len` (tokens
    of prompt and completion together) defaults to the model's limit. `kv_cache_gib` is the size of
    the key-value cache; by default 0.25 on a CPU (more where 8 full sequences need it) and, on a
    GPU, what `gpu_memory_utilization` leaves. `block_size` is the number of tokens that the prefix
    cache shares or recomputes as one. `threads` bounds the CPU threads of the engine; the default
    leaves PyTorch's. `eager` switches compilation and CUDA graphs off; by default on a CPU only.
    """

    type: Literal["vllm"] = "vllm"
    dtype: Dtype = "auto"
    max_model_len: int | None = Field(default=None, ge=2)
    max_num_seqs: int = Field(default=128, ge=1)
    block_size: int | None = Field(default=None, ge=1)
    kv_cache_gib: float | None = Field(default=None, gt=0)
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    tensor_parallel: int = Field(default=1, ge=1)
    threads: int | None = Field(default=None, ge=1)
    eager: bool | None = None
    trust_remote_code: bool = False

    def environment(self) -> dict[str, str]:
        """Environment variables for a process that will hold this engine, set before it starts.

        `start` sets them too, but an OpenMP runtime that another import has loaded by then has
        read its own. Waiting threads sleep and do not spin: a learner may want the same cores.
        """
        variables = {
            "GOMP_SPINCOUNT": "0",
            "KMP_BLOCKTIME": "0",
            "OMP_WAIT_POLICY": "PASSIVE",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_USE_V2_MODEL_RUNNER": "0",
        }
        if self.threads is not None:
            variables["OMP_NUM_THREADS"] = str(self.threads)
        return variables


class TransformersSettings(Settings):
    """A plain transformers model in this process: the reference that the others are held against.

    Requests that wait within `batch_window` seconds of each other are generated together, at most
    `max_batch` at a time.
    """

    type: Literal["transformers"] = "transformers"
    dtype: Dtype = "float32"
    device: str = "auto"
    max_model_len: int | None = Field(default=None, ge=2)
    max_batch: int = Field(default=64, ge=1)
    batch_window: float = Field(default=0.002, ge=0)
    trust_remote_code: bool = False


class ScriptedSettings(Settings):
    """A script in the policy's place; it cannot be trained.

    `script` is `"random"` (uniform tokens, with their true log-probabilities) or the id of a
    script that the caller of `build` provides, which needs no model: it speaks text. `latency` is
    the mean of a log-normal delay in seconds with spread `latency_sigma` (of the logarithm), cut at
    `latency_cap`.
    """

    type: Literal["scripted"] = "scripted"
    script: str = "random"
    latency: float = Field(default=0.0, ge=0)
    latency_sigma: float = Field(default=1.0, ge=0)
    latency_cap: float = Field(default=5.0, gt=0)
    seed: int = 0


class ServerSettings(Settings):
    """A model server that is asked over HTTP; it cannot be trained.

    `base_url` ends in the version (`https://host/v1`); `model` is the server's name for it, by
    default the policy's. The key is read from the environment variable `api_key_env` when that is
    set; `headers` (in which `$NAME` is an environment variable, for keys that no file is to hold)
    and the fields of `extra` are sent with every request. At most `concurrency` requests are under
    way at once, and in no window of a minute are there more requests and tokens than the limits
    allow (each rollout worker counts its own). A request that takes longer than `timeout` is given
    up and sent again, as are those that fail, up to `retries` times, after `backoff` seconds, twice
    as many each time up to `max_backoff`; for `patience` seconds a server may answer that it is
    asked too often.
    """

    base_url: str
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    headers: dict[str, str] = Field(default_factory=dict)
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    concurrency: int = Field(default=64, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    timeout: float = Field(default=180.0, gt=0)
    retries: int = Field(default=5, ge=0)
    backoff: float = Field(default=0.5, gt=0)
    max_backoff: float = Field(default=30.0, gt=0)
    patience: float = Field(default=300.0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(
                f"an address of a server starts with http:// or https://, got {value!r}"
            )
        return value


class OpenAISettings(ServerSettings):
    """Any OpenAI-compatible completion server, which is sent the exact tokens.

    `prompt` says what the server is sent: `"ids"` (vLLM and SGLang take token ids and
    return them) or `"text"` (the prompt decoded by the policy's tokenizer). `top_logprobs` log-
    probabilities per token give a top-k entropy; 0 gives none.
    """

    type: Literal["openai"] = "openai"
    prompt: Literal["ids", "text"] = "ids"
    top_logprobs: int = Field(default=5, ge=0, le=20)


class ChatSettings(ServerSettings):
    """Any OpenAI-compatible chat server, which is sent messages and answers with one.

    With `tools` "native" the tools of an environment travel in the request's own field and calls in
    the reply's; with "text" the system message describes them and a call is text. `inline` says how
    a result that continues the policy's own turn is shown: as a message of the "user", or as the
    beginning of the reply that the server is to "continue" (vLLM, SGLang). `max_tokens_field` and
    `omit` (names of fields that are left out, as `[temperature, stop]`) are for models that refuse
    what others take. `top_logprobs` log-probabilities per token give a top-k entropy; 0 asks for
    none.
    """

    type: Literal["chat"] = "chat"
    tools: Literal["native", "text"] = "native"
    inline: Literal["user", "continue"] = "user"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[str, ...] = ()
    top_logprobs: int = Field(default=0, ge=0, le=20)


AnyEngine: TypeAlias = Annotated[
    VllmSettings | TransformersSettings | ScriptedSettings | OpenAISettings | ChatSettings,
    Field(discriminator="type"),
]

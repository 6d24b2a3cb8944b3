"""What runs inside vLLM's workers: exact entropies beside log-probabilities, and new weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from vllm.v1.outputs import LogprobsTensors

ENTROPY_COLUMN = 1
"""Asking for one top log-probability returns the entropy in its place."""


def gather_with_entropy(
    logprobs: torch.Tensor, num_logprobs: int, token_ids: torch.Tensor
) -> LogprobsTensors:
    """`Sampler.gather_logprobs` of vLLM, with each row's entropy where its top-1 would stand.

    `logprobs` (N, V) are normalised, -inf where a filter removed the token; `token_ids` (N,) were
    sampled. Returns columns (sampled, entropy), or (sampled,) when `num_logprobs` is 0. Ranks are
    0: vLLM computes them with a function that takes a CPU 18 s to compile, and nobody reads them.
    """
    import torch
    from vllm.v1.outputs import LogprobsTensors

    if num_logprobs > ENTROPY_COLUMN:
        raise ValueError(f"at most one top log-probability can be asked for, got {num_logprobs}")
    columns = [logprobs.gather(-1, token_ids.unsqueeze(-1))]
    if num_logprobs == ENTROPY_COLUMN:
        # A token of probability 0 adds 0; -inf * 0 would be nan.
        lowest = torch.finfo(logprobs.dtype).min
        terms = logprobs.exp().mul_(logprobs.clamp_min(lowest))
        columns.append(-terms.sum(-1, keepdim=True))
    ids = token_ids.unsqueeze(-1).expand(-1, len(columns)).to(torch.int32).contiguous()
    ranks = torch.zeros_like(token_ids)
    return LogprobsTensors(ids, torch.cat(columns, dim=1), ranks)


class EngineWorker:
    """Methods that vLLM mixes into its worker class; `model_runner` is the worker's."""

    def report_entropy(self) -> None:
        """Let the sampler return entropies (see `gather_with_entropy`)."""
        self.model_runner.sampler.gather_logprobs = gather_with_entropy  # type: ignore[attr-defined]

    def load_safetensors(self, path: str) -> None:
        """Replace all weights by those of the safetensors file at `path` (hub names).

        Raises:
            ValueError: a weight of the model is missing in the file.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        runner = self.model_runner  # type: ignore[attr-defined]
        model = runner.get_model()
        tied = bool(getattr(runner.model_config.hf_config, "tie_word_embeddings", False))
        loaded: set[str] = set()
        plain_load = model.load_weights

        def load_and_remember(weights: Iterator[tuple[str, torch.Tensor]]) -> set[str]:
            loaded.update(plain_load(weights))
            return loaded

        names = {name for name, _ in model.named_parameters()}
        model.load_weights = load_and_remember
        try:
            runner.reload_weights(weights_iterator=_tensors(path, skip_output=tied))
        finally:
            del model.load_weights
        if missing := sorted(names - loaded):
            raise ValueError(f"{path} lacks weights of {len(missing)} parameters: {missing[:5]}")
        # The CPU backend multiplies by a packed copy of the output projection, which the reload
        # leaves as it was when the embeddings are tied.
        for module in model.modules():
            if isinstance(module, VocabParallelEmbedding):
                module.quant_method.process_weights_after_loading(module)


def _tensors(path: str, *, skip_output: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and mapped tensor of each entry; a tied output projection is not a weight of its own."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            if not (skip_output and name == "lm_head.weight"):
                yield name, file.get_tensor(name)

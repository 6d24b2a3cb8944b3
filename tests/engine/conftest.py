"""Tiny random policies with a tokenizer, and a plain forward pass to hold engines against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

TEXTS = ["what is the capital of france? paris. who wrote it? 0123456789 hello, world"] * 20


class Policy(NamedTuple):
    """A saved policy: its folder, and further weights of the same shape."""

    folder: Path
    models: list[Qwen3ForCausalLM]
    weights: list[Path]
    tokenizer: PreTrainedTokenizerFast

    def prompt(self, index: int, length: int = 24) -> list[int]:
        """A prompt of its own for every index."""
        return [(index * 7 + place * 13) % 300 + 8 for place in range(length)]


def _policy(folder: Path, *, tied: bool) -> Policy:
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen3ForCausalLM

    from agentrl.models.tiny import build_policy, build_tokenizer, save_policy

    tokenizer = build_tokenizer(TEXTS, vocab_size=400)
    config = build_policy(
        400, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        width=64, layers=3,
    ).config  # fmt: skip
    config.tie_word_embeddings = tied
    models, weights = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4.0)  # far from uniform
        path = folder / f"weights{seed}.safetensors"
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(state, path)
        models.append(model)
        weights.append(path)
    save_policy(folder / "policy", models[0], tokenizer)
    return Policy(folder / "policy", models, weights, tokenizer)


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy whose output projection is a weight of its own."""
    return _policy(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def tied_policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy whose output projection is its embedding."""
    return _policy(tmp_path_factory.mktemp("tied"), tied=True)


Forward = Callable[..., tuple[np.ndarray, np.ndarray]]


def _forward(
    model: Qwen3ForCausalLM, prompt: Sequence[int], action: Sequence[int], temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and entropies of `action` by one plain forward pass, in float64."""
    import torch

    ids = torch.tensor([[*prompt, *action]])
    with torch.no_grad():
        logits = model(ids).logits[0].double() / temperature
    logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    taken = logprobs[torch.arange(len(action)), torch.tensor(np.asarray(action)).long()]
    return taken.numpy(), entropy.numpy()


@pytest.fixture(scope="session")
def forward() -> Forward:
    """(model, prompt, action, temperature) -> log-probabilities and entropies of the action."""
    return _forward

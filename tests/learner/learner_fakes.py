"""A small decoder and random rows, for the learner's tests."""

from __future__ import annotations

import numpy as np
import torch

from agentrl.learner.batch import Row

VOCABULARY = 53


def build_model(*, tied: bool = False, grouped: bool = False, seed: int = 0):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2 if grouped else 4,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        dtype="float32",
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def sequence(length: int, rng: np.random.Generator) -> Row:
    """Random tokens and credit; the first three tokens and a stretch are not trained."""
    trained = (rng.random(length) < 0.7) & (np.arange(length) >= 3)
    mask = trained.astype(np.float32)
    positive = rng.exponential(size=length) * (rng.random(length) < 0.6)
    negative = -rng.exponential(size=length) * (rng.random(length) < 0.6)
    return Row.sequence(
        rng.integers(0, VOCABULARY, length),
        weight=mask * rng.uniform(0.5, 2, length).astype(np.float32),
        positive=mask * positive.astype(np.float32),
        negative=mask * negative.astype(np.float32),
        behavior_logprobs=mask * rng.normal(-4.0, 0.3, length).astype(np.float32),
    )

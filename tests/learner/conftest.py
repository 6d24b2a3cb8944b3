"""Small policies on disk and rows of random credit, for the learner's tests."""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from agentrl.learner.batch import Row, pack_rows

VOCABULARY = 53


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    build_model(grouped=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tied_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied")
    build_model(tied=True).save_pretrained(folder)
    return folder


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


@pytest.fixture
def sequences() -> list[Row]:
    rng = np.random.default_rng(7)
    return [sequence(length, rng) for length in (19, 31, 8, 26, 12, 5)]


@pytest.fixture
def rows(sequences: list[Row]) -> tuple[Row, ...]:
    return pack_rows(sequences, 40)


@pytest.fixture
def make_sequence() -> Callable[[int, int], Row]:
    return lambda length, seed: sequence(length, np.random.default_rng(seed))

"""Small policies on disk and rows of random credit, for the learner's tests."""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_fakes import build_model, sequence

from agentrl.learner.batch import Row, pack_rows


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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

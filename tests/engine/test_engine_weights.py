"""The shared file is plain safetensors and is written in place while its layout stays."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from safetensors.torch import load_file

from agentrl.core.errors import SetupError
from agentrl.engine.weights import WeightFile


def weights(seed: int, *, wide: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "a": torch.randn(3, wide),
        "half": torch.randn(7).to(torch.bfloat16),
        "strided": torch.randn(4, 6).t(),
        "scalar": torch.tensor(float(seed)),
    }


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name])
        for name in wanted
    )


def test_what_is_written_is_read_and_the_file_stays_while_its_layout_does(tmp_path):
    file = WeightFile(tmp_path / "weights.safetensors")
    file.write(weights(1))
    first = file.path.stat().st_ino
    assert equal(load_file(file.path), weights(1))
    file.write(weights(2))
    assert equal(load_file(file.path), weights(2))
    assert file.path.stat().st_ino == first
    file.write(weights(3, wide=9))
    assert equal(load_file(file.path), weights(3, wide=9))
    assert [one.name for one in tmp_path.iterdir()] == ["weights.safetensors"]
    file.close()
    file.write(weights(4))
    assert equal(load_file(file.path), weights(4))


def test_integers_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="steps is int64"):
        WeightFile(tmp_path / "w").write({"steps": torch.tensor(3)})


def test_a_full_shared_memory_is_named_and_nothing_is_left_in_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    file = WeightFile(tmp_path / "made" / "weights.safetensors")
    with pytest.raises(SetupError, match=r"made has no room for .*--shm-size"):
        file.write({"a": torch.zeros(3)})
    assert not list((tmp_path / "made").iterdir())

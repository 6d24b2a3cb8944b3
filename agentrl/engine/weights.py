"""Weights through shared memory: one safetensors file, mapped once and written over again."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.core.errors import SetupError

if TYPE_CHECKING:
    import torch

_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ALIGNMENT = 64  # bytes; tensors start where vector instructions like them to


class WeightFile:
    """Writes tensors to `path` at the cost of one copy in memory, from the second time on.

    The file is an ordinary safetensors file. While names, dtypes and shapes stay the same it is
    overwritten in place, through a mapping whose pages are already there (touching fresh ones
    costs several times the copy); otherwise a new file replaces it. Nobody may read it during
    `write`, and a reader that must keep a version copies it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._head = b""

    def write(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace the content by `weights` (on any device; float32, float16 or bfloat16)."""
        import torch

        head, offsets, size = _layout(weights)
        if self._map is None or head != self._head:
            self._create(head, size)
        assert self._map is not None
        content = torch.frombuffer(self._map, dtype=torch.uint8)
        for name, tensor in weights.items():
            start = len(head) + offsets[name]
            stretch = content[start : start + tensor.nbytes].view(tensor.dtype)
            stretch.copy_(tensor.detach().reshape(-1))

    def close(self) -> None:
        """Let go of the mapping; the file stays."""
        self._map = None

    def _create(self, head: bytes, size: int) -> None:
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.open("w+b") as file:
            try:
                # Memory that is only promised would end the process when it is written to.
                os.posix_fallocate(file.fileno(), 0, len(head) + size)
            except OSError as error:
                part.unlink()
                raise SetupError(
                    f"{part.parent} has no room for {(len(head) + size) / 2**30:.2f} GiB of "
                    f"weights ({error.strerror}). In a container start it with a larger "
                    "--shm-size; files of runs that were killed may lie there as "
                    "agentrl-weights-*"
                ) from error
            self._map = mmap.mmap(file.fileno(), 0)
        self._map[: len(head)] = head
        self._head = head
        part.replace(self.path)


def _layout(weights: Mapping[str, torch.Tensor]) -> tuple[bytes, dict[str, int], int]:
    """Header of a safetensors file, the offset of each tensor after it, and the bytes of all."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets: dict[str, int] = {}
    size = 0
    # Widest first and unpadded between: the format allows no holes.
    for name, tensor in sorted(weights.items(), key=lambda item: -item[1].element_size()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _NAMES:
            raise ValueError(f"weights must be floating point, {name} is {dtype}")
        offsets[name] = size
        end = size + tensor.nbytes
        entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [size, end],
        }
        size = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, offsets, size

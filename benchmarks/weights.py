"""Weights from learner to engine on one machine, beside one memcpy of the same bytes.

    python benchmarks/weights.py [--megabytes 512] [--repeat 7] [--vllm]

The floor copies every tensor once between buffers whose pages are warm. Ways: `safetensors` writes
a new file in shared memory with `save_file`; `transfer` is `WeightFile`, which writes the same
format in place; `transfer + read` also maps the file anew and copies all of it out, as an engine
does into its parameters. Goal (PERFORMANCE.md): transfer at most 1.15 times the memcpy. With
`--vllm`, also `VllmEngine.load` of a model of a million parameters.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from agentrl.engine.weights import WeightFile

_TENSOR = 4 << 20  # elements


def seconds(work: dict[str, Callable[[], None]], repeat: int) -> dict[str, list[float]]:
    """Times of each way, taken in turn so that a busy moment strikes all alike."""
    for one in work.values():
        one()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeat):
        for name, one in work.items():
            started = time.perf_counter()
            one()
            times[name].append(time.perf_counter() - started)
    return times


def transfers(folder: Path, megabytes: int) -> dict[str, Callable[[], None]]:
    """The floor and the ways, over one state of `megabytes`."""
    count = max(1, (megabytes << 20) // (4 * _TENSOR))
    state = {f"tensor{i}": torch.randn(_TENSOR) for i in range(count)}
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    shared = WeightFile(folder / "shared.safetensors")

    def memcpy() -> None:
        for name, tensor in state.items():
            target[name].copy_(tensor)

    def read() -> None:
        shared.write(state)
        with safe_open(shared.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                target[name].copy_(file.get_tensor(name))

    return {
        "memcpy": memcpy,
        "safetensors": lambda: save_file(state, folder / "new.safetensors"),
        "transfer": lambda: shared.write(state),
        "transfer + read": read,
    }


async def load_into_vllm(folder: Path, repeat: int) -> list[float]:
    """Times of `VllmEngine.load` for a small policy."""
    from agentrl.engine import VllmSettings, build
    from agentrl.models.tiny import build_policy, build_tokenizer, save_policy

    tokenizer = build_tokenizer(["a small text of little worth"] * 50, vocab_size=400)
    policy = build_policy(400, eos_token_id=1, pad_token_id=0)
    save_policy(folder / "policy", policy, tokenizer)
    engine = build(VllmSettings(max_model_len=256, threads=1), str(folder / "policy"))
    await engine.start()
    shared = WeightFile(folder / "policy.safetensors")
    times = []
    for version in range(1, repeat + 1):
        started = time.perf_counter()
        shared.write(policy.state_dict())
        await engine.load(shared.path, version)
        times.append(time.perf_counter() - started)
    await engine.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--vllm", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as name:
        times = seconds(transfers(Path(name), asked.megabytes), asked.repeat)
        floor = times["memcpy"]
        print(
            f"{asked.megabytes} MB, median of {asked.repeat}, ratio to one memcpy (and of minima)"
        )
        for way, taken in times.items():
            middle = statistics.median(taken)
            print(
                f"  {way:16} {middle:7.3f} s  {asked.megabytes / 1024 / middle:5.1f} GB/s"
                f"  {middle / statistics.median(floor):5.2f}  {min(taken) / min(floor):5.2f}"
            )
        if asked.vllm:
            loads = asyncio.run(load_into_vllm(Path(name), asked.repeat))
            print(f"  write and VllmEngine.load, 1 M parameters: {statistics.median(loads):.3f} s")


if __name__ == "__main__":
    main()

"""Log-probabilities over a large vocabulary, forward and backward: ours beside the products alone.

    python benchmarks/logprobs.py [--tokens 2048] [--vocabulary 151936] [--width 1024] [--rounds 3]

Every way runs in a process of its own, in turn, float32, `--threads` threads. "products" are the
three matrix products (logits, gradient to the hidden states, gradient to the projection) and
nothing else: the floor. "full" is log-softmax of all logits under autograd, "plain chunks" the
same chunk by chunk, recomputed on the way back. Memory is the peak above inputs and gradients.
Goals (PERFORMANCE.md): 1.25 times the products; a peak that does not depend on the tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

WAYS = ("products", "ours", "plain chunks", "full")


def products(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    chunk = max(1, 2**25 // len(weight))
    hidden.grad, weight.grad = torch.empty_like(hidden), torch.zeros_like(weight)
    with torch.no_grad():
        for part, out in zip(hidden.split(chunk), hidden.grad.split(chunk), strict=True):
            logits = part @ weight.T
            out.copy_(logits @ weight)
            weight.grad.addmm_(logits.T, part)


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    from agentrl.learner.logprobs import chunked_loss

    chunked_loss(hidden, weight, targets, lambda _, logprobs, __: -logprobs.exp()).loss.backward()


def full(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    log_p = torch.log_softmax(hidden @ weight.T, -1)
    (-log_p.gather(1, targets[:, None]).exp().sum()).backward()


def plain_chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    from torch.utils.checkpoint import checkpoint

    def part(hidden: Tensor, targets: Tensor) -> Tensor:
        return torch.log_softmax(hidden @ weight.T, -1).gather(1, targets[:, None])

    pieces = zip(hidden.split(220), targets.split(220), strict=True)
    logprobs = [checkpoint(part, *piece, use_reentrant=False) for piece in pieces]
    (-torch.cat(logprobs).exp().sum()).backward()


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measure(way: str, options: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    function = {"products": products, "ours": ours, "full": full, "plain chunks": plain_chunks}[way]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(options.vocabulary, options.width, generator=generator) * 0.02
    hidden = torch.randn(options.tokens, options.width, generator=generator)
    targets = torch.randint(options.vocabulary, (options.tokens,), generator=generator)
    function(
        hidden[:8].clone().requires_grad_(),
        weight[:512].clone().requires_grad_(),
        targets[:8] % 512,
    )
    hidden.requires_grad_(), weight.requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    started = time.perf_counter()
    function(hidden, weight, targets)
    seconds = time.perf_counter() - started
    gradients = (hidden.numel() + weight.numel()) * 4 / 2**20
    return {"seconds": seconds, "megabytes": memory("VmHWM") - before - gradients}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        sys.stdout.write(json.dumps(measure(options.way, options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for _ in range(options.rounds):
        for way in options.ways:
            command = [sys.executable, *sys.argv, "--way", way]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(output))
    floor = statistics.median(run["seconds"] for run in found["products"])
    for way, runs in found.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        megabytes = max(run["megabytes"] for run in runs)
        sys.stdout.write(
            f"{way:13} {seconds:7.2f} s  {seconds / floor:5.2f} x  {megabytes:7.0f} MB\n"
        )


if __name__ == "__main__":
    main()

"""One update of a Qwen-shaped policy of half a billion parameters, random weights: time and memory.

    python benchmarks/big_model.py [--tokens 1024] [--length 256] [--sequences 8] [--threads 1]

The shape is Qwen2.5-0.5B's (24 layers of width 896, 14 heads on 2, a tied vocabulary of 151,936).
A group of answers is packed into rows of `--tokens` and taken through one `Learner.update` with
gradient checkpointing and an export of the weights.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from agentrl.learner.batch import Row, pack_rows
from agentrl.learner.settings import LearnerSettings, OptimizerSettings

VOCABULARY = 151_936


def write_policy(folder: Path) -> int:
    """Write a policy with random weights into `folder`; returns its number of parameters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def sequences(count: int, length: int) -> list[Row]:
    """Prompt and answer, half each, with random tokens and credit."""
    rng = np.random.default_rng(0)
    trained = (np.arange(length) >= length // 2).astype(np.float32)
    return [
        Row.sequence(
            rng.integers(0, VOCABULARY, length).astype(np.int32),
            weight=trained,
            positive=trained * float(sign > 0),
            negative=-trained * float(sign < 0),
            behavior_logprobs=trained * -np.log(VOCABULARY),
        )
        for sign in rng.choice([-1, 1], count)
    ]


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process in GB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--zero-stage", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        parameters = write_policy(Path(name))
        started = time.perf_counter()
        from agentrl.learner.learner import Learner

        settings = LearnerSettings(
            zero_stage=options.zero_stage,
            gradient_checkpointing=True,
            threads=options.threads,
            optimizer=OptimizerSettings(warmup_steps=0),
        )
        learner = Learner(settings, name)
        ready = time.perf_counter()
        rows = pack_rows(sequences(options.sequences, options.length), options.tokens)
        held = memory("VmRSS")
        metrics = learner.update(rows, float(sum(row.trained_tokens for row in rows)))
        done = time.perf_counter()
        learner.export(Path(name) / "export" / "model.safetensors")
        exported = time.perf_counter()
    sys.stdout.write(
        f"{parameters / 1e6:.0f} M parameters, {len(rows)} rows of {len(rows[0])} tokens, "
        f"{metrics['train/tokens']:.0f} trained\n"
        f"start {ready - started:.1f} s, update {done - ready:.1f} s, "
        f"export {exported - done:.1f} s\n"
        f"memory before the update {held:.1f} GB, at its peak {memory('VmHWM'):.1f} GB\n"
        f"gradient norm {metrics['train/gradient_norm']:.3f}, "
        f"nll {metrics['train/nll']:.2f} (ln V {np.log(VOCABULARY):.2f})\n"
    )


if __name__ == "__main__":
    main()

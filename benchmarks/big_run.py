"""One whole iteration of a 0.5 B-parameter policy: play, credit, update, sync; peak memory.

    python benchmarks/big_run.py [--runtime ray] [--engine vllm]

The policy is Qwen2-shaped (494 M parameters, 151,936 tokens, tied), built from its configuration
with random weights; its tokenizer is the small search policy's, so that it samples mostly tokens
that spell nothing, which costs the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, Task
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run
from agentrl.workers.runtime import save_frame

RECIPE = """
name: big_run
runtime: {runtime}
env: {{id: "big_run:VarietyEnv"}}
policy: {{model: {model}}}
engine: {engine}
sampler: {{type: chain, trajectories: 4}}
rollout:
  sampling: {{max_tokens_per_turn: {tokens}}}
  limits: {{max_tokens: 512, turn_seconds: 1800}}
learner: {{pack_tokens: 512, gradient_checkpointing: true}}
train: {{iterations: 1, tasks_per_iteration: 2, save_every: 0}}
eval: {{at_start: false, at_end: false}}
"""

ENGINES = {
    "vllm": "{type: vllm, max_model_len: 512, max_num_seqs: 8}",
    "transformers": "{type: transformers, max_batch: 8}",
}


class VarietyEnv(Env):
    """One turn, worth the share of different characters: any two random answers differ in it."""

    def tasks(self, split: str) -> Sequence[Task]:
        """Two prompts of some hundred tokens."""
        return [Task(f"{split}-{index}", {"text": f"say {index} " * 60}) for index in range(2)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The prompt."""
        return (Message.of("user", task.data["text"]),)

    async def step(self, action: str) -> StepResult:
        """Score the answer."""
        reward = len(set(action)) / max(1, len(action))
        return StepResult((), reward, True, False, StepInfo(rewards={"variety": reward}))


def build(folder: Path) -> int:
    """Write the policy into `folder`; its number of parameters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4_864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=2_048,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    small = Path(__file__).parents[1] / "agentrl" / "models" / "tiny_search"
    folder.mkdir()
    save_frame(str(small), folder)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


class MemoryWatch:
    """The largest resident memory of this process tree, and of each of its processes."""

    def __init__(self) -> None:
        self.total = 0
        self.each: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    size = process.memory_info().rss
                    name = " ".join(process.cmdline()[:1])[:40]
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
                total += size
                self.each[name] = max(self.each.get(name, 0), size)
            self.total = max(self.total, total)

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runtime", choices=("ray", "local"), default="ray")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="vllm")
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    # Workers import the environment from this file.
    sys.path.append(str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    base = Path(tempfile.mkdtemp(prefix="agentrl-big-"))
    try:
        parameters = build(base / "policy")
        text = RECIPE.format(
            runtime=options.runtime,
            model=base / "policy",
            engine=ENGINES[options.engine],
            tokens=options.tokens,
        )
        (base / "big_run.yaml").write_text(text)
        watch, started = MemoryWatch(), time.monotonic()
        run(load(base / "big_run.yaml"), out=base / "run")
        watch.stop()
        row = read_metrics(base / "run" / "metrics.jsonl")[-1]
        print(f"\n{parameters / 1e6:.0f} M parameters, float32, {time.monotonic() - started:.0f} s")
        for name in (
            "time/rollout_seconds",
            "rollout/generated_tokens",
            "rollout/prefilled_tokens",
            "time/update_seconds",
            "train/tokens",
            "time/sync_seconds",
            "train/behavior_difference",
            "train/behavior_difference_largest",
            "policy/probe_difference_largest",
        ):
            print(f"  {name:36s} {row.get(name, float('nan')):.6g}")
        for name, size in sorted(watch.each.items(), key=lambda item: -item[1])[:5]:
            print(f"  peak of {name:28s} {size / 2**30:6.2f} GiB")
        print(f"  peak of all together                 {watch.total / 2**30:6.2f} GiB")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()

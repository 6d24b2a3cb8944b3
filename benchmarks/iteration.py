"""One whole iteration (generate, reward, credit, update, new weights) beside two peers.

    python benchmarks/iteration.py [--peers bare ours-transformers ours-vllm trl] [--trl FOLDER]

4 prompts of `--prompt` tokens x 8 completions x 64 tokens on a Qwen3-shaped policy of 4.2 M
parameters, float32. Every peer runs in a process of its own, in turn, over the same prompts from
the same weights. Before the timed iterations each one computes the gradient of the same given
samples: its norm is printed, so that equal work is seen to be equal. Peers:

- `bare`: transformers' forward with a key-value cache, padded rows, full logits, torch's AdamW;
- `ours-transformers`, `ours-vllm`: an engine, GRPO credit, packed rows, the DeepSpeed learner, and
  weights through a safetensors file;
- `trl`: TRL's GRPOTrainer with transformers generation. It is no dependency: FOLDER is where
  `pip install --no-deps --target FOLDER trl datasets multiprocess xxhash` put it.

Memory is the peak of the process, imports included. Goal (PERFORMANCE.md): at most 0.55 of TRL.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from agentrl.core.types import Group
    from agentrl.engine.base import Completion
    from agentrl.learner.learner import Learner
    from agentrl.learner.settings import LearnerSettings

PROMPTS, COMPLETIONS, TOKENS, VOCABULARY = 4, 8, 64, 1024
PEERS = ("bare", "ours-transformers", "ours-vllm", "trl")
RATE = 1.0e-5
Ints = npt.NDArray[np.int64]


class Given(NamedTuple):
    """Prompts (4, P) and one set of completions (4, 8, 64)."""

    prompts: Ints
    completions: Ints


class Report(NamedTuple):
    """What one peer saw; seconds are of whole iterations, in order."""

    wall: list[float]
    cpu: list[float]
    generate: list[float]
    gradient_norm: float
    peak_mib: float


def reward(completion: Sequence[int] | Ints) -> float:
    """The share of even token ids: something that differs between completions."""
    return float(np.mean(np.asarray(completion) % 2 == 0))


class Clock:
    """Wall and processor seconds of iterations, and the wall seconds of generation in them."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.generate: list[float] = []
        self._start = (time.perf_counter(), time.process_time())

    def begin(self) -> None:
        """An iteration begins."""
        self._start = (time.perf_counter(), time.process_time())

    def generated(self) -> None:
        """Its generation has ended."""
        self.generate.append(time.perf_counter() - self._start[0])

    def end(self) -> None:
        """It has ended."""
        self.wall.append(time.perf_counter() - self._start[0])
        self.cpu.append(time.process_time() - self._start[1])

    def report(self, gradient_norm: float) -> Report:
        """All of it but the first iteration, which warms up."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Report(self.wall[1:], self.cpu[1:], self.generate[1:], gradient_norm, peak)


def make_policy(folder: Path) -> int:
    """A random policy and a tokenizer of one word a token; returns its parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    words = {"<pad>": 0, "<end>": 1} | {f"w{index}": index for index in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=864,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            dtype="float32",
        )
    )
    model.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def bare(folder: Path, given: Given, iterations: int) -> Report:
    """The smallest program: a cache, padded rows, full logits, AdamW."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    prompts = torch.from_numpy(given.prompts).repeat_interleave(COMPLETIONS, 0)

    def update(completions: torch.Tensor) -> float:
        returns = torch.tensor([reward(one.numpy()) for one in completions]).view(PROMPTS, -1)
        advantages = (returns - returns.mean(1, keepdim=True)).view(-1, 1)
        logits = model(
            torch.cat([prompts, completions], 1), logits_to_keep=TOKENS + 1, use_cache=False
        ).logits
        logprobs = logits[:, :-1].log_softmax(-1).gather(-1, completions[..., None])[..., 0]
        ratio = (logprobs - logprobs.detach()).exp()
        loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages).mean()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    norm = update(torch.from_numpy(given.completions).view(-1, TOKENS))
    optimizer.param_groups[0]["lr"] = RATE
    clock = Clock()
    for _ in range(iterations + 1):
        clock.begin()
        completions = _sample(model, prompts)
        clock.generated()
        update(completions)
        clock.end()
    return clock.report(norm)


def _sample(model: PreTrainedModel, prompts: torch.Tensor) -> torch.Tensor:
    """64 tokens (N, 64) after each of `prompts` (N, P) at temperature 1."""
    import torch

    tokens, fed, cache = [], prompts, None
    with torch.inference_mode():
        for _ in range(TOKENS):
            out = model(fed, past_key_values=cache, logits_to_keep=1, use_cache=True)
            cache = out.past_key_values
            fed = torch.multinomial(out.logits[:, -1].softmax(-1), 1)
            tokens.append(fed)
    return torch.cat(tokens, 1).clone()


def ours(folder: Path, given: Given, iterations: int, engine_type: str) -> Report:
    """An engine, credit, packed rows and the learner, as a run puts them together."""
    from agentrl.learner.learner import Learner
    from agentrl.learner.settings import LearnerSettings, OptimizerSettings

    settings = LearnerSettings(
        optimizer=OptimizerSettings(learning_rate=RATE, warmup_steps=0, weight_decay=0.0)
    )
    probe = Learner(settings, folder)
    norm = _learn(probe, _groups(given, _scored(probe, given)), settings)
    probe.close()
    return asyncio.run(_ours(folder, given, iterations, engine_type, settings, norm))


async def _ours(
    folder: Path,
    given: Given,
    iterations: int,
    engine_type: str,
    settings: LearnerSettings,
    norm: float,
) -> Report:
    from agentrl.engine import TransformersSettings, VllmSettings, build
    from agentrl.engine.base import Sampling
    from agentrl.learner.learner import Learner

    length = given.prompts.shape[1] + TOKENS + 1
    choices = {
        "transformers": TransformersSettings(),
        "vllm": VllmSettings(max_model_len=length, threads=int(os.environ["OMP_NUM_THREADS"])),
    }
    engine = build(choices[engine_type], str(folder))
    await engine.start()
    learner = Learner(settings, folder)
    weights = Path("/dev/shm") / f"iteration-{os.getpid()}.safetensors"
    clock = Clock()
    try:
        for number in range(iterations + 1):
            clock.begin()
            completions: list[Completion] = await asyncio.gather(
                *[
                    engine.generate(
                        prompt, Sampling(max_tokens=TOKENS, seed=number * 64 + row * 8 + index)
                    )
                    for row, prompt in enumerate(given.prompts)
                    for index in range(COMPLETIONS)
                ]
            )
            clock.generated()
            sampled = np.array([one.token_ids for one in completions], np.int64)
            again = Given(given.prompts, sampled.reshape(PROMPTS, COMPLETIONS, TOKENS))
            groups = _groups(again, np.array([one.logprobs for one in completions]))
            _learn(learner, groups, settings)
            learner.export(weights)
            await engine.load(weights, number + 1)
            clock.end()
        await engine.close()
    finally:
        weights.unlink(missing_ok=True)
    return clock.report(norm)


def _scored(learner: Learner, given: Given) -> npt.NDArray[np.float32]:
    """Log-probabilities (32, 64) of the given completions."""
    rows = [
        np.concatenate([prompt, completion]).astype(np.int32)
        for prompt, completions in zip(given.prompts, given.completions, strict=True)
        for completion in completions
    ]
    return np.array([one[-TOKENS:] for one in learner.score(rows)])


def _groups(given: Given, logprobs: npt.NDArray[np.float32]) -> list[Group]:
    """A group for each prompt, a tree of one turn for each completion."""
    from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree, Turn

    groups = []
    for row, (prompt, completions) in enumerate(zip(given.prompts, given.completions, strict=True)):
        trees = []
        for index, completion in enumerate(completions):
            tree = TrajectoryTree(f"t{row}", prompt)
            turn = Turn(
                action_ids=completion.astype(np.int32),
                logprobs=logprobs[row * COMPLETIONS + index].astype(np.float32),
                entropies=np.zeros(TOKENS, np.float32),
                reward=reward(completion),
            )
            tree.end(tree.add(ROOT, turn), StopReason.TERMINATED)
            trees.append(tree)
        groups.append(Group(f"t{row}", f"t{row}", tuple(trees)))
    return groups


def _learn(learner: Learner, groups: list[Group], settings: LearnerSettings) -> float:
    """Credit and one update; returns the gradient's norm."""
    from agentrl.credit import GrpoCredit
    from agentrl.trainer.batches import credit_of, training_steps

    credit = GrpoCredit(scale="none")
    (step,) = training_steps(
        groups,
        credit_of(groups, credit, settings.loss),
        settings.loss,
        pack_tokens=settings.pack_tokens,
        updates=1,
    )
    return learner.update(step.batch.rows, step.batch.denominator)["train/gradient_norm"]


def trl(folder: Path, given: Given, iterations: int) -> Report:
    """TRL's GRPOTrainer with the same shapes, loss and optimizer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    texts = [" ".join(f"w{token}" for token in prompt) for prompt in given.prompts]
    clock = Clock()

    class Timer(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
        def on_step_begin(self, *_: object, **__: object) -> None:
            clock.begin()

        def on_step_end(self, *_: object, **__: object) -> None:
            clock.end()

    def train(steps: int, rollout: Callable[..., dict[str, object]] | None) -> float:
        with tempfile.TemporaryDirectory() as out:
            config = GRPOConfig(
                output_dir=out,
                max_steps=steps,
                per_device_train_batch_size=PROMPTS * COMPLETIONS,
                num_generations=COMPLETIONS,
                max_completion_length=TOKENS,
                generation_kwargs={"min_new_tokens": TOKENS},
                learning_rate=RATE,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=1.0,
                beta=0.0,
                loss_type="dapo",
                scale_rewards="none",
                epsilon=0.2,
                epsilon_high=0.28,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                shuffle_dataset=False,
                logging_steps=1,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            )
            trainer = GRPOTrainer(
                model=str(folder),
                reward_funcs=lambda completion_ids, **_: [reward(one) for one in completion_ids],
                args=config,
                train_dataset=Dataset.from_dict({"prompt": texts}),
                callbacks=[Timer()],
                rollout_func=rollout,
            )
            trainer.train()
            return float(trainer.state.log_history[0]["grad_norm"])

    def replay(prompts: list[str], *_: object) -> dict[str, object]:
        seen = dict.fromkeys(texts, 0)
        rows = []
        for prompt in prompts:
            rows.append(given.completions[texts.index(prompt), seen[prompt]].tolist())
            seen[prompt] += 1
        ids = [given.prompts[texts.index(prompt)].tolist() for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": rows, "logprobs": None}

    norm = train(1, replay)
    clock = Clock()
    train(iterations + 1, None)
    return clock.report(norm)


def run_peer(peer: str, folder: Path, iterations: int) -> Report:
    """The figures of one peer, in this process."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with np.load(folder / "given.npz") as arrays:
        given = Given(arrays["prompts"], arrays["completions"])
    if peer == "bare":
        return bare(folder, given, iterations)
    if peer == "trl":
        return trl(folder, given, iterations)
    return ours(folder, given, iterations, peer.removeprefix("ours-"))


def start_peer(peer: str, folder: Path, options: argparse.Namespace) -> Report:
    """The figures of one peer, in a process of its own."""
    report = folder / f"{peer}.json"
    path = [str(options.trl)] if peer == "trl" and options.trl else []
    done = subprocess.run(
        [sys.executable, __file__, "--run", peer, str(folder), str(options.iterations)],
        env=os.environ
        | {
            "OMP_NUM_THREADS": str(options.threads),
            # Waiting threads that spin would measure whatever else runs on the machine.
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
            "KMP_BLOCKTIME": "0",
            "PYTHONPATH": os.pathsep.join([*path, *[part for part in sys.path if part]]),
            "TRL_EXPERIMENTAL_SILENCE": "1",
            "HF_HUB_OFFLINE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stdout[-4000:]}")
    return Report(**json.loads(report.read_text()))


def show(reports: dict[str, Report]) -> None:
    """The table; ratios are to TRL, or to bare where TRL was not measured."""
    base = "trl" if "trl" in reports else "bare"
    print(
        f"{'peer':<20}{'wall s':>9}{'CPU s':>9}{'generate':>10}{'peak MiB':>10}"
        f"{'gradient norm':>16}{'of ' + base + ', wall':>16}{'CPU':>8}"
    )
    for peer, one in reports.items():
        wall, cpu = statistics.median(one.wall), statistics.median(one.cpu)
        line = f"{peer:<20}{wall:>9.3f}{cpu:>9.3f}"
        line += f"{statistics.median(one.generate):>10.3f}" if one.generate else f"{'':>10}"
        line += f"{one.peak_mib:>10.0f}{one.gradient_norm:>16.9f}"
        if base in reports:
            other = reports[base]
            line += f"{wall / statistics.median(other.wall):>15.2f}x"
            line += f"{cpu / statistics.median(other.cpu):>7.2f}x"
        print(line)


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        peer, folder, iterations = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
        report = run_peer(peer, folder, iterations)
        (folder / f"{peer}.json").write_text(json.dumps(report._asdict()))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trl", type=Path, help="folder that holds trl, if not installed")
    options = parser.parse_args()
    if "trl" in options.peers and not (options.trl or importlib.util.find_spec("trl")):
        print("trl is not importable and --trl names no folder that has it: not measured")
        options.peers.remove("trl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = make_policy(folder)
        rng = np.random.default_rng(0)
        np.savez(
            folder / "given.npz",
            prompts=rng.integers(2, VOCABULARY, (PROMPTS, options.prompt)),
            completions=rng.integers(2, VOCABULARY, (PROMPTS, COMPLETIONS, TOKENS)),
        )
        print(
            f"{parameters:,} parameters, prompts of {options.prompt} tokens, "
            f"{options.threads} threads, load {os.getloadavg()[0]:.1f}"
        )
        show({peer: start_peer(peer, folder, options) for peer in options.peers})


if __name__ == "__main__":
    main()

"""The learner on trees against the same trees as packed flat rows: time, memory, gradients.

    python benchmarks/tree_learner.py [--shapes group8 binary ...] [--repeats 3] [--width 256]

Forward and backward of the loss over one batch, float32, one thread, a Qwen3-shaped decoder (4.2 M
parameters at the default width, vocabulary 1,024). Each way runs in a process of its own, in turn;
the time is the least of the repeats, the memory what the process grew by. The ideal is the ratio
of the tokens of the rows: leaf tokens to unique tokens. Flat rows hold whole trajectories, packed
up to the same number of tokens, without padding. Shapes:

- `group1` ... `group8`: 1 to 8 answers of 128 tokens to one prompt of 512;
- `binary`: a binary tree of depth 6, 64 tokens a turn;
- `comb8`, `comb16`: a prompt of 64, a chain of so many turns of 64 tokens, and one more turn
  beside each of them;
- `wide16`, `wide32`: a prompt of 64 and about 2,000 unique tokens with 16 or 32 leaves;
- `cut`: `binary` in rows of 1,024 tokens: what is computed again where a tree is cut.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np

from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree, Turn
from agentrl.credit import GrpoCredit, TurnTable, assign
from agentrl.learner.batch import Batch
from agentrl.learner.packing import pack_groups

VOCABULARY = 1024
PACK_TOKENS = 16_384


def turn(rng: np.random.Generator, tokens: int, reward: float) -> Turn:
    """Three quarters of the tokens are sampled, the rest is observed."""
    sampled = tokens * 3 // 4
    return Turn(
        action_ids=rng.integers(2, VOCABULARY, sampled).astype(np.int32),
        logprobs=np.full(sampled, -7.0, np.float32),
        entropies=np.zeros(sampled, np.float32),
        observation_ids=rng.integers(2, VOCABULARY, tokens - sampled).astype(np.int32),
        reward=reward,
    )


def grown(parents: list[int], *, prompt: int, tokens: int) -> Group:
    """A tree with a turn for each of `parents`, and random returns."""
    rng = np.random.default_rng(0)
    tree = TrajectoryTree("task", rng.integers(2, VOCABULARY, prompt).astype(np.int32))
    for parent in parents:
        tree.add(parent, turn(rng, tokens, float(rng.random())))
    for node in sorted(set(range(len(parents))) - set(parents)):
        tree.end(node, StopReason.TERMINATED)
    return Group("task", "task", (tree,))


def comb(turns: int) -> list[int]:
    parents = [ROOT, *range(turns - 1)]
    return [*parents, ROOT, *range(turns - 1)]


def wide(leaves: int, nodes: int) -> list[int]:
    """One shared chain, and `leaves` turns after it: equal unique tokens, other leaves."""
    return [ROOT, *range(nodes - leaves - 1), *[nodes - leaves - 1] * leaves]


SHAPES: dict[str, tuple[list[int], int, int, int]] = {
    **{f"group{n}": ([ROOT] * n, 512, 128, PACK_TOKENS) for n in (1, 2, 4, 8)},
    "binary": ([ROOT, *((node - 1) // 2 for node in range(1, 63))], 64, 64, PACK_TOKENS),
    "comb8": (comb(8), 64, 64, PACK_TOKENS),
    "comb16": (comb(16), 64, 64, PACK_TOKENS),
    "wide16": (wide(16, 33), 64, 64, PACK_TOKENS),
    "wide32": (wide(32, 33), 64, 64, PACK_TOKENS),
    "cut": ([ROOT, *((node - 1) // 2 for node in range(1, 63))], 64, 64, 1024),
}
"""Parents of the turns, tokens of the prompt, tokens of a turn, tokens of a row."""


class Measured(NamedTuple):
    """Seconds, megabytes that the process grew by, tokens in rows, and the gradient's norm."""

    seconds: float
    megabytes: float
    tokens: int
    norm: float


def flat(group: Group, pack_tokens: int) -> Batch:
    """Every trajectory as a chain of its own, with its own prompt."""
    trees = []
    for trajectory in group.trajectories():
        # A group of its own keeps its prompt from being shared.
        chain = TrajectoryTree(group.task_id, trajectory.tree.prompt_ids)
        node = ROOT
        for one in trajectory.turns:
            node = chain.add(node, one)
        chain.end(node, trajectory.stop_reason)
        trees.append(chain)
    whole = Group(group.id, group.task_id, tuple(trees))
    table = TurnTable.of([whole])
    assigned = assign(table, GrpoCredit(singleton="raw"))
    credit, denominator = assigned.credit, assigned.denominator
    alone = [Group(str(n), group.task_id, (tree,)) for n, tree in enumerate(trees)]
    return pack_groups(alone, table, credit, denominator=denominator, pack_tokens=pack_tokens)


def as_tree(group: Group, pack_tokens: int) -> Batch:
    table = TurnTable.of([group])
    assigned = assign(table, GrpoCredit(singleton="raw"))
    credit, denominator = assigned.credit, assigned.denominator
    return pack_groups([group], table, credit, denominator=denominator, pack_tokens=pack_tokens)


def measure(shape: str, way: str, repeats: int, width: int) -> Measured:
    """One way in this process."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from agentrl.learner.kernels import TrainedTokens
    from agentrl.learner.loss import policy_terms
    from agentrl.learner.loss_settings import PpoLoss
    from agentrl.learner.model import prepare_policy

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=width * 27 // 8,
            num_hidden_layers=4,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            head_dim=64,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            dtype="float32",
        )
    )
    policy, loss = prepare_policy(model), PpoLoss()
    parents, prompt, tokens, pack_tokens = SHAPES[shape]
    group = grown(parents, prompt=prompt, tokens=tokens)
    batch = flat(group, pack_tokens) if way == "flat" else as_tree(group, pack_tokens)

    def backward() -> None:
        for row in batch.rows:
            trained = np.flatnonzero(row.weight)
            columns = (row.token_ids, row.positions, trained, row.previous[trained])
            inputs = [torch.from_numpy(np.asarray(one, np.int64)) for one in columns]
            credit = (row.positive, row.negative, row.weight, row.behavior_logprobs)
            given = TrainedTokens(*(torch.from_numpy(one[trained]) for one in credit))
            found = policy(
                *inputs,
                layout=row.layout,
                terms=lambda span, logprobs, entropies, given=given: policy_terms(
                    logprobs, entropies, given.part(span), loss
                ),
                scale=1.0 / batch.denominator,
            )
            found.loss.backward()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    backward()
    norm = float(sum(p.grad.double().square().sum() for p in policy.parameters()) ** 0.5)
    best = np.inf
    for _ in range(repeats):
        policy.zero_grad(set_to_none=True)
        started = time.perf_counter()
        backward()
        best = min(best, time.perf_counter() - started)
    grown_by = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Measured(best, grown_by, sum(map(len, batch.rows)), norm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.repeats, options.width)))
        return
    print("shape     row tokens: flat    tree  ideal | seconds: flat   tree  ratio  of ideal"
          " | MB: flat   tree  ratio | gradient norms apart")  # fmt: skip
    for shape in options.shapes:
        found = {}
        for way in ("flat", "tree"):
            command = [sys.executable, __file__, "--one", shape, way]
            command += ["--repeats", str(options.repeats), "--width", str(options.width)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way] = Measured(*json.loads(done.stdout.splitlines()[-1]))
        a, b = found["flat"], found["tree"]
        ideal, ratio = a.tokens / b.tokens, a.seconds / b.seconds
        print(
            f"{shape:10}{a.tokens:16,}{b.tokens:8,}{ideal:7.2f} |{a.seconds:14.3f}{b.seconds:7.3f}"
            f"{ratio:7.2f}{ratio / ideal:10.0%} |{a.megabytes:9.0f}{b.megabytes:7.0f}"
            f"{b.megabytes / a.megabytes:7.2f} | {abs(a.norm - b.norm) / a.norm:.1e}"
        )


if __name__ == "__main__":
    main()

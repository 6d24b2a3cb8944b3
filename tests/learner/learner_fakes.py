"""A small decoder, random rows and random trees, for the learner's tests."""

from __future__ import annotations

import numpy as np
import torch

from agentrl.core.types import Group, StopReason, TrajectoryTree, Turn
from agentrl.learner.batch import Row

VOCABULARY = 53


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


def random_tree(rng: np.random.Generator, prompt: np.ndarray, *, leaves: int) -> TrajectoryTree:
    """A tree with about so many leaves, forks anywhere, empty turns and unseen observations."""
    tree = TrajectoryTree("task", prompt)
    while len(set(range(len(tree.turns))) - set(tree.parents)) < leaves:
        above = int(rng.integers(-1, len(tree.turns)))
        for _ in range(int(rng.integers(1, 4))):
            size, seen = int(rng.integers(0, 6)), int(rng.integers(0, 4))
            turn = Turn(
                action_ids=rng.integers(0, VOCABULARY, size).astype(np.int32),
                # Off the policy, so that ratios reach all bounds.
                logprobs=rng.normal(-4.0, 0.7, size).astype(np.float32),
                entropies=np.zeros(size, np.float32),
                observation_ids=rng.integers(0, VOCABULARY, seen).astype(np.int32),
                reward=float(rng.integers(0, 3)) / 2,
            )
            above = tree.add(above, turn)
    for node in sorted(set(range(len(tree.turns))) - set(tree.parents)):
        failed = rng.random() < 0.1
        tree.end(node, StopReason.ENV_ERROR if failed else StopReason.TERMINATED)
    return tree


def random_group(seed: int, *, leaves: int) -> Group:
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, VOCABULARY, 5).astype(np.int32)
    trees = tuple(random_tree(rng, prompt, leaves=max(1, leaves // 3)) for _ in range(3))
    return Group("task", "task", trees)

"""A random small policy and a recipe that trains it in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

RECIPE = """
name: vowels
runtime: local
env: {{id: "trainer_fakes:VowelEnv"}}
policy: {{model: {model}}}
engine: {{type: transformers, max_batch: 1}}
sampler: {{type: arpo, trajectories: 4, initial: 2}}
credit: {{type: arpo}}
rollout:
  sampling: {{max_tokens_per_turn: 6}}
  limits: {{max_tokens: 128, max_turns: 3}}
learner: {{threads: 1, pack_tokens: 256, optimizer: {{learning_rate: 1.0e-3, warmup_steps: 0}}}}
train: {{iterations: 8, tasks_per_iteration: 3, save_every: 1}}
eval: {{every: 4, tasks: 4}}
"""


@pytest.fixture(scope="session")
def small_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from agentrl.models.tiny import build_policy, build_tokenizer, save_policy

    folder = tmp_path_factory.mktemp("policy")
    tokenizer = build_tokenizer(
        ["some words to go on with, a word for all of us"] * 4, vocab_size=320
    )
    policy = build_policy(
        len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        width=64,
        layers=2,
    )
    save_policy(folder, policy, tokenizer)
    return folder


@pytest.fixture
def recipe_file(tmp_path: Path, small_policy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    path = tmp_path / "vowels.yaml"
    path.write_text(RECIPE.format(model=small_policy))
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("ENGINE_BREAKER", str(tmp_path_factory.mktemp("arm") / "armed"))
        # "local": never the cluster that somebody else has started on this machine.
        ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
        yield
        ray.shutdown()

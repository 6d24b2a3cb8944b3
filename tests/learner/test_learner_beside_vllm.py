"""A learner goes on when an engine of vLLM's in its process ends (`runtime: local`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from learner_fakes import VOCABULARY

from agentrl.engine import VllmSettings
from agentrl.engine.base import Sampling
from agentrl.engine.vllm import VllmEngine, spare_process_group
from agentrl.learner.batch import Row
from agentrl.learner.learner import Learner
from agentrl.learner.settings import LearnerSettings
from agentrl.models.tiny import build_policy, build_tokenizer, save_policy

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")


def test_a_learner_goes_on_when_vllm_cleans_up_whoever_made_the_process_group(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path
) -> None:
    """By the function with which an engine ends, around what one does with groups as it starts."""
    from vllm.distributed import parallel_state

    def engine_starts(number: int) -> None:
        spare_process_group()
        parallel_state.init_distributed_environment(
            world_size=1,
            rank=0,
            local_rank=0,
            distributed_init_method=f"file://{tmp_path / str(number)}",
            backend="gloo",
        )
        assert parallel_state.get_world_group().world_size == 1

    if torch.distributed.is_initialized():  # another test's
        torch.distributed.destroy_process_group()
    engine_starts(0)
    learner = Learner(LearnerSettings(threads=1), model_folder)
    for number in (1, 2):
        parallel_state.cleanup_dist_env_and_memory()
        assert torch.distributed.is_initialized()
        learner.update(rows, 100.0)
        assert learner.updates == number
        engine_starts(number)
    parallel_state.cleanup_dist_env_and_memory()
    learner.close()


def test_vllm_ends_a_process_group_that_is_only_its_own(monkeypatch) -> None:
    from vllm.distributed import parallel_state

    import agentrl.engine.process_group as of_the_process

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    monkeypatch.setattr(of_the_process, "_shared", threading.Event())
    spare_process_group()
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    parallel_state.cleanup_dist_env_and_memory()
    assert not torch.distributed.is_initialized()


async def test_a_learner_goes_on_when_a_real_engine_is_replaced(
    rows: Sequence[Row], tmp_path: Path
) -> None:
    tokenizer = build_tokenizer(["some words to go on with"] * 4, vocab_size=320)
    policy = build_policy(
        max(len(tokenizer), VOCABULARY),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        width=64,
        layers=2,
    )
    save_policy(tmp_path, policy, tokenizer)
    engine = VllmEngine(
        VllmSettings(max_model_len=128, kv_cache_gib=0.05, threads=1), str(tmp_path)
    )
    await engine.start()
    learner = Learner(LearnerSettings(threads=1), tmp_path)
    await engine.close()
    learner.update(rows, 100.0)
    await engine.start()
    assert len((await engine.generate([9, 10], Sampling(max_tokens=4, seed=0))).token_ids) == 4
    learner.update(rows, 100.0)
    assert learner.updates == 2
    await engine.close()
    learner.close()

"""A run that samples while it learns stores of every token what its own policy said of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agentrl import store
from agentrl.core.types import Turn
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run
from agentrl.workers.fleet import Fleet

pytestmark = pytest.mark.slow

ENGINES = {
    "transformers": "{type: transformers, max_batch: 16}",
    "vllm": "{type: vllm, max_model_len: 256, kv_cache_gib: 0.05, threads: 1}",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_token_has_the_logprob_of_its_version_across_pushes(
    recipe_file: Path, tmp_path: Path, small_policy: Path, monkeypatch, engine: str
) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm")
    plain_load = Fleet.load

    async def load_and_keep(self, weights, version, *, write):
        async def write_and_keep():
            await write()
            shutil.copyfile(weights, tmp_path / f"{version}.safetensors")

        await plain_load(self, weights, version, write=write_and_keep)

    monkeypatch.setattr(Fleet, "load", load_and_keep)
    recipe = load(
        recipe_file,
        [
            "train={iterations: 6, tasks_per_iteration: 3, max_lag: 2, save_every: 0}",
            "rollout.sampling.max_tokens_per_turn=40",
            f"engine={ENGINES[engine]}",
            "learner.correction={type: tis}",
            "eval={every: 0, at_start: false, at_end: false}",
        ],
    )
    out = tmp_path / "run"
    run(recipe, out=out)
    rows = read_metrics(out / "metrics.jsonl")[1:]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert max(row["policy/lag_max"] for row in rows) in (1, 2)
    assert sum(row["policy/mixed_turns"] for row in rows) > 0
    assert all(row["policy/probe_difference_largest"] < 1e-3 for row in rows)

    said = policies(small_policy, tmp_path)
    for iteration, row in enumerate(rows):
        lags = []
        for group in store.read(out / "trees" / f"iteration-{iteration + 1:06d}.parquet"):
            for tree in group.trees:
                for parent, turn in zip(tree.parents, tree.turns, strict=True):
                    expected = said(tree.context_ids(parent), turn)
                    np.testing.assert_allclose(turn.logprobs, expected, atol=5e-5)
                    lags += (iteration - turn.token_versions).tolist()
        assert row["policy/lag_mean"] == pytest.approx(np.mean(lags))
        assert row["policy/lag_max"] == max(lags) <= 2


def policies(base: Path, folder: Path):
    """A function: a context and a turn after it -> each token's log-probability by its version."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    def said(context: np.ndarray, turn: Turn) -> np.ndarray:
        ids = torch.tensor(np.concatenate([context, turn.action_ids])).long()
        found = np.full(len(turn.action_ids), np.nan)
        for version in set(turn.token_versions.tolist()):
            model.load_state_dict(load_file(folder / f"{version}.safetensors"), strict=False)
            with torch.no_grad():
                logits = model(ids[None]).logits[0, len(context) - 1 : -1]
            logprobs = logits.double().log_softmax(-1)
            taken = logprobs[torch.arange(len(found)), ids[len(context) :]].numpy()
            mine = turn.token_versions == version
            found[mine] = taken[mine]
        return found

    return said

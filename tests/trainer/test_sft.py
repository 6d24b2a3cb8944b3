"""Imitation trains the tokens of actions and nothing else, and its recipe still learns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from agentrl.core.registry import make_env
from agentrl.engine.tokens import load_tokenizer
from agentrl.models.tiny import TAGS, build_tokenizer
from agentrl.recipe.load import load
from agentrl.rollout.render import Renderer
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.sft import batches, encode, sft, tags_of


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(build_tokenizer(["What is the capital of a country?"] * 8, vocab_size=400))


def test_only_the_experts_actions_are_trained_and_parts_are_encoded_alone(
    renderer: Renderer,
) -> None:
    demonstration = next(make_env("search/facts").demonstrations(seed=0))
    row = encode(demonstration, renderer)
    trained = renderer.decode(row.token_ids[row.weight == 1.0])
    assert trained == "".join(action for action, _ in demonstration.turns)
    prompt = renderer.prompt_ids(demonstration.prompt)
    np.testing.assert_array_equal(row.token_ids[: len(prompt)], prompt)
    assert set(np.unique(row.weight)) == {0.0, 1.0}


def test_a_batch_averages_over_its_trained_tokens_and_the_stream_ends_with_the_demonstrations(
    renderer: Renderer,
) -> None:
    few = list(islice(make_env("search/facts").demonstrations(seed=1), 5))
    found = list(batches(iter(few), renderer, size=2, pack_tokens=512))
    assert len(found) == 3
    lengths = [int(encode(one, renderer).weight.sum()) for one in few]
    assert [batch.denominator for batch in found] == [
        lengths[0] + lengths[1],
        lengths[2] + lengths[3],
        lengths[4],
    ]
    assert all(sum(row.trained_tokens for row in b.rows) == b.denominator for b in found)


def test_the_tags_of_an_environments_tools_are_tokens_of_a_new_policy() -> None:
    assert tags_of(make_env("search/facts").stop) == TAGS
    assert tags_of(("</python>", "</answer>", "\n")) == (*TAGS, "<python>", "</python>")
    tokenizer = build_tokenizer(["a = sum(x)"] * 8, vocab_size=400, tags=tags_of(("</python>",)))
    assert len(tokenizer.encode("<python></python>")) == 2


@pytest.mark.slow
def test_the_recipe_of_the_warm_start_still_learns(tmp_path: Path) -> None:
    recipe = load(
        "sft_search",
        [
            "runtime=local",
            "engine={type: transformers}",
            "sft.steps=40",
            "learner.optimizer.warmup_steps=10",
            "eval.every=0",
            "eval.tasks=4",
        ],
        purpose="sft",
    )
    result = sft(recipe, out=tmp_path / "run")
    losses = [row["train/loss"] for row in read_metrics(result.out / "metrics.jsonl")]
    assert losses[0] > 6.0
    assert np.mean(losses[-5:]) < 3.5
    assert len(load_tokenizer(str(result.out / "policy"))) == 768

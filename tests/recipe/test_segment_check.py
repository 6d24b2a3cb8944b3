"""Segments where something is about whole turns are refused, saying what to do."""

from __future__ import annotations

import pytest

from agentrl.core.errors import RecipeError
from agentrl.recipe.load import load

CUT = "rollout.sampling.segment_tokens=16"
SPO = ("sampler={type: spo, widths: [2, 2]}", "credit={type: spo}")

REFUSED = {
    "segments as long as turns": (
        ("rollout.sampling.segment_tokens=100000", *SPO),
        "rollout.sampling.segment_tokens: 100000 tokens cut no action, since none is longer than "
        "max_tokens_per_turn = ",
    ),
    "chains": (
        (CUT, "sampler={type: chain}", "credit={type: grpo}"),
        "rollout.sampling.segment_tokens: sampler 'chain' never forks, so segments would only "
        "cost requests. Leave it out, or use 'spo', 'tree', 'at2po' or 'mcts'.",
    ),
    "entropies after observations": (
        (CUT,),
        "sampler.type: 'arpo' forks by how sure the policy is after an observation, and a segment "
        "follows none. Use 'spo', 'tree', 'at2po' or 'mcts', or leave out "
        "rollout.sampling.segment_tokens.",
    ),
    "credit of turns": (
        (CUT, SPO[0], "credit={type: gigpo}"),
        "credit.type: 'gigpo' is about whole turns, and rollout.sampling.segment_tokens makes "
        "several nodes of one. Leave that out, or use credit that compares trajectories or "
        "subtrees (grpo, tree_po, tree_rl or spo, for example).",
    ),
    "turns that discount": (
        (CUT, SPO[0], "credit={type: reinforce_pp, gamma: 0.9}"),
        "credit.gamma: gamma counts turns, and rollout.sampling.segment_tokens makes",
    ),
    "ratios of turns": (
        (CUT, *SPO, "learner.loss={level: turn, clip_low: 3.0e-3, clip_high: 4.0e-3}"),
        "learner.loss.level: 'turn' takes one ratio for a whole turn, and "
        "rollout.sampling.segment_tokens makes several nodes of one. Leave that out, or use level "
        "'token'.",
    ),
    "means over turns": (
        (CUT, *SPO, "learner.loss={aggregation: turn_mean}"),
        "learner.loss.aggregation: 'turn_mean' counts whole turns, and "
        "rollout.sampling.segment_tokens makes several nodes of one. Leave that out, or use "
        "'token_mean'.",
    ),
    "segments for a sampler that forks at tokens": (
        (CUT, "sampler={type: tree_rl}", "credit={type: tree_rl}"),
        "rollout.sampling.segment_tokens: sampler 'tree_rl' forks at tokens, wherever they stand, "
        "so segments would only cost requests. Leave it out.",
    ),
    "credit of turns for such a sampler": (
        ("sampler={type: tree_rl}", "credit={type: hgpo}"),
        "credit.type: 'hgpo' is about whole turns, and sampler 'tree_rl' makes several nodes of "
        "one. Use sampler 'tree', or use credit that compares trajectories or subtrees",
    ),
    "no tokens at all": (
        ("rollout.sampling.segment_tokens=0", *SPO),
        "rollout.sampling.segment_tokens: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_segments_that_cannot_work_are_refused(name: str) -> None:
    overrides, expected = REFUSED[name]
    with pytest.raises(RecipeError) as caught:
        load("arpo_search", overrides)
    assert expected in str(caught.value)


@pytest.mark.parametrize("credit", ["spo", "tree_po", "tree_rl", "grpo", "reinforce_pp", "at2po"])
@pytest.mark.parametrize("sampler", ["spo", "tree", "at2po", "mcts"])
def test_segments_that_can_work_are_not(sampler: str, credit: str) -> None:
    recipe = load(
        "arpo_search", [CUT, f"sampler={{type: {sampler}}}", f"credit={{type: {credit}}}"]
    )
    assert recipe.rollout.sampling.segment_tokens == 16

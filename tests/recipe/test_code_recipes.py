"""The recipes of the code session are compared at one budget, and go on from one policy."""

from __future__ import annotations

from agentrl.recipe.load import load
from agentrl.samplers import ArpoSampler, ChainSampler, TreeSampler


def test_the_recipes_of_the_code_session_differ_in_sampler_and_credit_alone() -> None:
    recipes = [load(name) for name in ("arpo_code", "tree_grpo_code", "grpo_code")]
    assert [type(one.sampler) for one in recipes] == [ArpoSampler, TreeSampler, ChainSampler]
    assert {one.sampler.trajectories for one in recipes} == {8}
    own = {"name", "sampler", "credit", "expect", "band"}
    first, *others = [one.model_dump(exclude=own) for one in recipes]
    assert all(one == first for one in others)


def test_they_go_on_from_the_warm_start_in_the_same_environment() -> None:
    start, run = load("sft_code", purpose="sft"), load("arpo_code")
    assert run.policy.model == "runs/sft_code/policy"
    for same in ("env", "engine", "rollout"):
        assert getattr(start, same) == getattr(run, same)

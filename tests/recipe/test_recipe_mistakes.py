"""Twenty and more mistakes in recipes, each with exactly the message that a person gets."""

from pathlib import Path

import pytest

from agentrl.core.errors import RecipeError
from agentrl.core.registry import env_ids
from agentrl.recipe.load import load

GOOD = """\
# A recipe without a mistake.
name: example
env: {id: search/facts, max_turns: 4}
policy: {model: tiny/search}
sampler: {type: arpo, trajectories: 8, initial: 4}
credit: {type: arpo}
learner:
  optimizer: {learning_rate: 1.0e-4}
  loss: {clip_high: 0.28}
train:
  iterations: 20
  tasks_per_iteration: 8
"""


def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *overrides: str) -> str:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load("x.yaml", overrides)
    return str(caught.value)


MISTAKES = {
    "a misspelt key": (
        ("initial: 4", "inital: 4"),
        "x.yaml:5: unknown setting 'sampler.inital'. Did you mean 'initial'? Known here: type, "
        "trajectories, initial, alpha, beta, threshold, branch_factor, probe_tokens, decision.",
    ),
    "a key of another section": (
        ("  iterations: 20", "  learning_rate: 1.0e-4"),
        "x.yaml:11: unknown setting 'train.learning_rate'. Did you mean "
        "'learner.optimizer.learning_rate' or 'learner.critic.learning_rate'? Known here: "
        "iterations, tasks_per_iteration, updates_per_iteration, max_lag, max_generated_tokens, "
        "max_tool_calls, refill, hints, curriculum, replay, overlong, save_every, "
        "keep_checkpoints.",
    ),
    "a key of another type": (
        ("{type: arpo, trajectories: 8, initial: 4}", "{type: chain, branch_factor: 2}"),
        "x.yaml:5: unknown setting 'sampler.branch_factor'. It belongs to type 'arpo' and "
        "'aepo'. Known here: type, trajectories.",
    ),
    "a key twice": (
        ("  tasks_per_iteration: 8", "  iterations: 8"),
        "x.yaml:12: 'train.iterations' is set twice; the first is x.yaml:11. Delete one.",
    ),
    "a section twice": (
        ("credit: {type: arpo}", "policy: {model: other}"),
        "x.yaml:6: 'policy' is set twice; the first is x.yaml:4. Delete one.",
    ),
    "a number that YAML reads as text": (
        ("1.0e-4", "1e-4"),
        "x.yaml:8: learner.optimizer.learning_rate: input should be a valid number, got '1e-4'. "
        "YAML reads 1e-4 as text; write 1.0e-4.",
    ),
    "a whole number that YAML reads as text": (
        ("iterations: 20", "iterations: 2e3"),
        "x.yaml:11: train.iterations: input should be a valid integer, got '2e3'. Write 2000.",
    ),
    "a number too small": (
        ("tasks_per_iteration: 8", "tasks_per_iteration: 0"),
        "x.yaml:12: train.tasks_per_iteration: input should be greater than or equal to 1, got 0.",
    ),
    "a word that YAML reads as a switch": (
        ("name: example", "name: on"),
        "x.yaml:2: name: input should be a valid string, got True. YAML reads on as true; quote "
        "it.",
    ),
    "a wrong choice": (
        ("{type: arpo}\n", "{type: arpo, attribution: hart}\n"),
        "x.yaml:6: credit.attribution: input should be 'soft' or 'hard', got 'hart'. Did you "
        "mean 'hard'?",
    ),
    "a wrong type of sampler": (
        ("type: arpo, tra", "type: aprpo, tra"),
        "x.yaml:5: sampler.type: no sampler is named 'aprpo'. Did you mean 'arpo'? Known: chain, "
        "arpo, arpo_released, aepo, eepo, tree, at2po, spo, mcts, tree_rl.",
    ),
    "no type": (
        ("credit: {type: arpo}", "credit: {scale: none}"),
        "x.yaml:6: credit.type: field required. Known: grpo, rloo, opo, otb, pass_at_k, reinforce, "
        "reinforce_pp, turn_grpo, mt_grpo, arpo, tree_grpo, at2po, tree_rl, tree_po, spo, gigpo, "
        "hgpo, gae, turn_gae, bilevel_gae.",
    ),
    "a missing field": (
        ("{model: tiny/search}", "{probe_bound: 0.1}"),
        "x.yaml:4: policy.model: field required.",
    ),
    "a missing section": (
        ("env: {id: search/facts, max_turns: 4}\n", ""),
        "x.yaml: env: field required.",
    ),
    "a section that is none": (
        ("policy: {model: tiny/search}", "policy: tiny/search"),
        "x.yaml:4: policy: input should be a mapping of settings, got 'tiny/search'.",
    ),
    "an unknown environment": (
        ("search/facts", "search/fact"),
        "x.yaml:3: env.id: no environment is named 'search/fact'. Did you mean 'search/facts'? "
        f"`agentrl env list` shows the {len(env_ids())} installed ones.",
    ),
    "an unknown setting of the environment": (
        ("max_turns", "max_turn"),
        "x.yaml:3: unknown setting 'env.max_turn' of 'search/facts'. Did you mean 'max_turns'? "
        "Known here: id, wrappers, topk, max_turns, max_result_chars, result_style, max_searches, "
        "hops, format, prompt, instructions, rewards.",
    ),
    "a wrong value for the environment": (
        ("max_turns: 4", "max_turns: many"),
        "x.yaml:3: env.max_turns: input should be a valid integer, unable to parse string as an "
        "integer, got 'many'.",
    ),
    "a value that the environment refuses": (
        ("max_turns: 4", "max_turns: 0"),
        "x.yaml:3: env: FactsSearchEnv needs max_turns >= 1 and max_tool_calls >= 0, got 0 and "
        "None",
    ),
    "more initial trajectories than there are": (
        ("initial: 4", "initial: 9"),
        "x.yaml:5: sampler: initial = 9 trajectories are more than trajectories = 8, the whole "
        "budget; lower the first or raise the second.",
    ),
    "a dual clip inside the clip": (
        ("clip_high: 0.28", "dual_clip: 1.1"),
        "x.yaml:9: learner.loss: dual_clip must be above 1 + clip_high = 1.28, got 1.1: a lower "
        "cap would stop what the ordinary clip still trains.",
    ),
    "a constant that nothing reads": (
        ("clip_high: 0.28", "constant: 100.0"),
        "x.yaml:9: learner.loss: `constant` is read only with aggregation 'constant', not "
        "'token_mean'.",
    ),
    "a cluster that nothing joins": (
        ("name: example", "name: example\nruntime: local\ncluster: auto"),
        "x.yaml:4: cluster: nothing reads it while runtime is 'local'.",
    ),
    "workers without processes": (
        ("credit:", "runtime: local\nrollout: {workers: 2}\ncredit:"),
        "x.yaml:7: rollout.workers: 2 workers need a process each, and runtime is 'local'. Use "
        "1, or runtime 'ray'.",
    ),
    "sampling that the learner does not follow": (
        ("credit:", "rollout: {sampling: {top_p: 0.9}}\ncredit:"),
        "x.yaml:6: rollout.sampling.top_p: the learner's log-probabilities are over the whole "
        "vocabulary, so training needs top_p = 1.0 and top_k = 0.",
    ),
    "an engine that cannot be trained": (
        ("credit:", "engine: {type: openai, base_url: https://host/v1}\ncredit:"),
        "x.yaml:6: engine.type: 'openai' cannot take new weights, so it cannot train; it is for "
        "`agentrl eval`. Use 'vllm' or 'transformers'.",
    ),
    "an engine shorter than its trajectories": (
        ("credit:", "engine: {type: vllm, max_model_len: 512}\ncredit:"),
        "x.yaml:6: engine.max_model_len: 512 tokens are fewer than a trajectory may have "
        "(rollout.limits.max_tokens = 4096).",
    ),
    "credit without its critic": (
        ("credit: {type: arpo}", "credit: {type: gae}"),
        "x.yaml:6: credit.type: 'gae' is against a critic's values, and there is no critic. Add "
        "`learner: {critic: {trunk: own}}`, or use a credit that compares trajectories (grpo, for "
        "example).",
    ),
    "a critic that nothing reads": (
        ("learner:\n", "learner:\n  critic: {trunk: shared}\n"),
        "x.yaml:8: learner.critic: nothing reads its values: credit.type is 'arpo'. Leave it out, "
        "or use gae, turn_gae or bilevel_gae.",
    ),
    "trees of one": (
        (
            "sampler: {type: arpo, trajectories: 8, initial: 4}\ncredit: {type: arpo}",
            "sampler: {type: chain}\ncredit: {type: tree_grpo, terms: intra}",
        ),
        "x.yaml:6: credit.terms: 'intra' compares the trajectories of one tree, and sampler "
        "'chain' makes trees of one trajectory, so nothing would train. Use 'both' or 'inter', or "
        "a sampler that branches.",
    ),
    "groups of one": (
        ("{type: arpo, trajectories: 8, initial: 4}", "{type: chain, trajectories: 1}"),
        "x.yaml:5: sampler.trajectories: 1 makes groups of one, in which 'arpo' has nothing to "
        "compare. Use 2 or more, or credit.type 'reinforce_pp', which needs none.",
    ),
    "imitating everything": (
        ("credit: {type: arpo}", "credit: {type: reinforce, worth: one}"),
        "x.yaml:6: credit.worth: 'one' imitates all that is trained, failures too, unless a "
        "filter chooses. Add `filters: [{type: best}]` (RAFT), or use 'return'.",
    ),
    "an unbiased baseline over a spread": (
        ("credit: {type: arpo}", "credit: {type: turn_grpo, baseline: leave_one_out}"),
        "x.yaml:6: credit: dividing by a spread would make `baseline: leave_one_out` biased again; "
        "add `scale: none`.",
    ),
    "greedy training": (
        ("credit:", "rollout: {sampling: {temperature: 0}}\ncredit:"),
        "x.yaml:6: rollout.sampling.temperature: at 0 all trajectories of a task are the same, "
        "and there is nothing to compare. Use a temperature above 0.",
    ),
    "more updates than groups": (
        ("  iterations: 20", "  updates_per_iteration: 9"),
        "x.yaml:11: train.updates_per_iteration: 9 updates need as many groups, and "
        "train.tasks_per_iteration is 8.",
    ),
    "a built-in model that is none": (
        ("tiny/search", "tiny/serach"),
        "x.yaml:4: policy.model: no built-in model is named 'tiny/serach'. Did you mean "
        "'tiny/search'? Known: tiny/search.",
    ),
    "what is no YAML": (
        ("credit: {type: arpo}", "credit: {type: arpo"),
        "x.yaml:7: not valid YAML: expected ',' or '}', but got ':'",
    ),
    "what is no mapping": (
        (GOOD, "- a\n- b\n"),
        "x.yaml:1: a recipe is a mapping of settings; this file holds none",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_its_message(name: str, tmp_path, monkeypatch) -> None:
    (old, new), expected = MISTAKES[name]
    assert GOOD.count(old) == 1
    assert message(tmp_path, monkeypatch, GOOD.replace(old, new)) == expected


def test_the_recipe_without_a_mistake_loads(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(GOOD)
    assert load("x.yaml").train.iterations == 20


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path, monkeypatch) -> None:
    text = GOOD.replace("iterations: 20", "iterations: x").replace("initial", "inital")
    lines = message(tmp_path, monkeypatch, text, "seed=-1", "log.tree=2").splitlines()
    for line, begins in zip(
        lines,
        (
            "x.yaml:5: ",
            "x.yaml:11: ",
            "x.yaml: override seed=-1: ",
            "x.yaml: override log.tree=2: ",
        ),
        strict=True,
    ):
        assert line.startswith(begins)


OVERRIDES = {
    "train.iterations=many": "override train.iterations=many: train.iterations: input should be "
    "a valid integer, got 'many'.",
    "train.iteration=3": "override train.iteration=3: unknown setting 'train.iteration'. Did you "
    "mean 'iterations'? Known here: iterations, tasks_per_iteration, updates_per_iteration, "
    "max_lag, max_generated_tokens, max_tool_calls, refill, hints, curriculum, replay, overlong, "
    "save_every, keep_checkpoints.",
    "train.iterations": "override 'train.iterations': expected key=value, as in "
    "train.iterations=20",
    "=3": "override '=3': expected key=value, as in train.iterations=20",
    "name.first=x": "override name.first=x: 'name' is 'example', which has no settings inside",
    "env.max_turns=[": "override env.max_turns=[: the value is not valid YAML; quote it",
    "learner.optimizer.learning_rate=1e-5": "override learner.optimizer.learning_rate=1e-5: "
    "learner.optimizer.learning_rate: input should be a valid number, got '1e-5'. YAML reads "
    "1e-5 as text; write 1.0e-5.",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_mistake_in_an_override_names_the_recipe_and_the_override(
    override, tmp_path, monkeypatch
) -> None:
    assert message(tmp_path, monkeypatch, GOOD, override) == f"x.yaml: {OVERRIDES[override]}"


def test_a_branching_sampler_needs_an_environment_that_forks(tmp_path, monkeypatch) -> None:
    (tmp_path / "rigid_env.py").write_text(
        "from agentrl.core.env import Env\n"
        "class Rigid(Env):\n"
        "    async def reset(self, task, *, seed): return ()\n"
        "    async def step(self, action): raise NotImplementedError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = GOOD.replace("{id: search/facts, max_turns: 4}", '{id: "rigid_env:Rigid"}')
    assert message(tmp_path, monkeypatch, text) == (
        "x.yaml:5: sampler.type: 'arpo' branches in the middle of an episode, and environment "
        "'rigid_env:Rigid' says that it cannot (forkable = 'no'). Use 'chain', or give the "
        "environment a fork."
    )


def test_a_missing_file_lists_the_shipped_recipes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load("recipes/arpo_serach.yaml")
    said = str(caught.value)
    assert said.startswith("no recipe 'recipes/arpo_serach.yaml': no such file from ")
    assert "Did you mean 'arpo_search'? `agentrl recipe list` names these " in said


def test_sft_needs_its_section(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load("x.yaml", purpose="sft")
    assert str(caught.value) == (
        "x.yaml: sft: field required by `agentrl sft`, as in `sft: {steps: 500}`."
    )

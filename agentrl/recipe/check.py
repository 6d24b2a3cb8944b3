"""What is wrong with a recipe whose settings are each right: combinations that cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from agentrl.core.env import Env
from agentrl.core.errors import AgentRLError, RecipeError, nearest
from agentrl.core.registry import env_class, env_settings, make_env
from agentrl.credit import ReinforceCredit, TreeGrpoCredit
from agentrl.credit.values import ValueBaseline
from agentrl.engine.settings import ScriptedSettings
from agentrl.recipe.look_check import imitation_problems, look_problems
from agentrl.recipe.loss_check import loss_problems
from agentrl.recipe.messages import Problem
from agentrl.recipe.models import resolve_model
from agentrl.recipe.schema import Recipe
from agentrl.recipe.segment_check import segment_problems
from agentrl.recipe.selection_check import selection_problems

Purpose: TypeAlias = Literal["run", "sft", "eval"]
"""The command that a recipe is read for."""

_SCRIPTS = ("random", "oracle", "spoiled_oracle")


def find_problems(recipe: Recipe, purpose: Purpose) -> list[Problem]:
    """Everything that would stop `agentrl PURPOSE` later, found before anything starts.

    Builds the environment (constructors do no work) and loads nothing heavy.
    """
    problems = [*_environment(recipe), *_policy(recipe, purpose), *_rollout(recipe, purpose)]
    if purpose != "eval":
        problems += _learner(recipe)
    if purpose == "run":
        problems += _forgetting(recipe)
        problems += [*_comparison(recipe), *_critic(recipe)]
        problems += [*loss_problems(recipe), *selection_problems(recipe), *look_problems(recipe)]
        problems += segment_problems(recipe)
    if purpose == "sft":
        problems += imitation_problems(recipe)
    if purpose == "sft" and recipe.sft is None:
        said = "sft: field required by `agentrl sft`, as in `sft: {steps: 500}`."
        problems.append(Problem(("sft",), said))
    return problems


def _environment(recipe: Recipe) -> Iterator[Problem]:
    id_, args = recipe.env.id, recipe.env.args
    try:
        known = env_settings(env_class(id_))
    except AgentRLError as error:
        yield Problem(("env", "id"), f"env.id: {error}")
        return
    unknown = [key for key in args if key not in known and key != "wrappers"]
    for key in unknown:
        said = f"unknown setting 'env.{key}' of {id_!r}.{nearest(key, known)}"
        yield Problem(("env", key), f"{said} Known here: {', '.join(['id', 'wrappers', *known])}.")
    if unknown:
        return
    try:
        env = make_env(id_, **args)
    except AgentRLError as error:
        said = str(error).removeprefix(f"env {id_!r}: ")
        blamed = [key for key in args if said.startswith(f"{key}: ")]
        yield Problem(("env", *blamed), f"env.{said}" if blamed else f"env: {said}")
        return
    yield from _fork(recipe, env)


def _fork(recipe: Recipe, env: Env) -> Iterator[Problem]:
    if recipe.sampler.needs_fork and env.forkable == "no":
        yield Problem(
            ("sampler", "type"),
            f"sampler.type: {recipe.sampler.type!r} branches in the middle of an episode, and "
            f"environment {recipe.env.id!r} says that it cannot (forkable = 'no'). Use 'chain', "
            "or give the environment a fork.",
        )


def _policy(recipe: Recipe, purpose: Purpose) -> Iterator[Problem]:
    policy = recipe.policy
    if policy.new is None or purpose != "sft":
        try:
            resolve_model(policy.model)
        except RecipeError as error:
            yield Problem(("policy", "model"), f"policy.model: {error}.")


def _rollout(recipe: Recipe, purpose: Purpose) -> Iterator[Problem]:
    engine, rollout, evaluation = recipe.engine, recipe.rollout, recipe.eval
    if purpose != "eval" and engine.type in ("chat", "openai", "scripted"):
        yield Problem(
            ("engine", "type"),
            f"engine.type: {engine.type!r} cannot take new weights, so it cannot train; it is for "
            "`agentrl eval`. Use 'vllm' or 'transformers'.",
        )
    if isinstance(engine, ScriptedSettings) and engine.script not in _SCRIPTS:
        yield Problem(
            ("engine", "script"),
            f"engine.script: no script is named {engine.script!r}."
            f"{nearest(engine.script, _SCRIPTS)} Known: {', '.join(_SCRIPTS)}.",
        )
    length = getattr(engine, "max_model_len", None)
    if length is not None and length < rollout.limits.max_tokens:
        yield Problem(
            ("engine", "max_model_len"),
            f"engine.max_model_len: {length} tokens are fewer than a trajectory may have "
            f"(rollout.limits.max_tokens = {rollout.limits.max_tokens}).",
        )
    if evaluation.temperature == 0.0 and evaluation.samples > 1:
        yield Problem(
            ("eval", "samples"),
            f"eval.samples: {evaluation.samples} samples at temperature 0 are copies of one. Use "
            "1, or a temperature above 0.",
        )
    if recipe.runtime == "local" and rollout.workers > 1:
        yield Problem(
            ("rollout", "workers"),
            f"rollout.workers: {rollout.workers} workers need a process each, and runtime is "
            "'local'. Use 1, or runtime 'ray'.",
        )
    if recipe.runtime == "local" and recipe.cluster is not None:
        yield Problem(("cluster",), "cluster: nothing reads it while runtime is 'local'.")


def _forgetting(recipe: Recipe) -> Iterator[Problem]:
    """What EEPO's two halves with different weights between them leave no room for."""
    if recipe.sampler.type != "eepo":
        return
    train, place = recipe.train, ("sampler", "type")
    if train.max_lag:
        yield Problem(
            ("train", "max_lag"),
            "train.max_lag: sampler 'eepo' changes the engines' weights within an iteration, so "
            "nothing of a later one may be sampled meanwhile. Use 0, or another sampler.",
        )
    if recipe.learner.zero_stage == 3:
        yield Problem(
            ("learner", "zero_stage"),
            "learner.zero_stage: sampler 'eepo' moves the weights by a step outside the optimizer, "
            "and at stage 3 each rank holds parts of them only. Use 0, 1 or 2.",
        )
    for key, used in (("refill", train.refill), ("hints", train.hints)):
        if used:
            yield Problem(
                place,
                f"sampler.type: 'eepo' plays a group in two halves, and train.{key} judges whole "
                f"ones as they end. Leave out train.{key}, or use another sampler.",
            )


def _learner(recipe: Recipe) -> Iterator[Problem]:
    if recipe.runtime == "local" and recipe.learner.ranks > 1:
        yield Problem(
            ("learner", "ranks"),
            f"learner.ranks: {recipe.learner.ranks} ranks need a process each, and runtime is "
            "'local'. Use 1, or runtime 'ray'.",
        )


def _critic(recipe: Recipe) -> Iterator[Problem]:
    """A critic and a credit that asks it need one another."""
    asks = isinstance(recipe.credit, ValueBaseline)
    if asks and recipe.learner.critic is None:
        yield Problem(
            ("credit", "type"),
            f"credit.type: {recipe.credit.type!r} is against a critic's values, and there is no "
            "critic. Add `learner: {critic: {trunk: own}}`, or use a credit that compares "
            "trajectories (grpo, for example).",
        )
    if not asks and recipe.learner.critic is not None:
        yield Problem(
            ("learner", "critic"),
            f"learner.critic: nothing reads its values: credit.type is {recipe.credit.type!r}. "
            "Leave it out, or use gae, turn_gae or bilevel_gae.",
        )


def _comparison(recipe: Recipe) -> Iterator[Problem]:
    """What reinforcement learning needs: several different trajectories of a task."""
    sampling, train = recipe.rollout.sampling, recipe.train
    if sampling.temperature == 0.0:
        yield Problem(
            ("rollout", "sampling", "temperature"),
            "rollout.sampling.temperature: at 0 all trajectories of a task are the same, and "
            "there is nothing to compare. Use a temperature above 0.",
        )
    if sampling.top_p < 1.0 or sampling.top_k > 0:
        key = "top_p" if sampling.top_p < 1.0 else "top_k"
        yield Problem(
            ("rollout", "sampling", key),
            f"rollout.sampling.{key}: the learner's log-probabilities are over the whole "
            "vocabulary, so training needs top_p = 1.0 and top_k = 0.",
        )
    if recipe.sampler.trajectories == 1 and recipe.credit.needs_group:
        yield Problem(
            ("sampler", "trajectories"),
            f"sampler.trajectories: 1 makes groups of one, in which {recipe.credit.type!r} has "
            "nothing to compare. Use 2 or more, or credit.type 'reinforce_pp', which needs none.",
        )
    credit, sampler = recipe.credit, recipe.sampler
    inside = isinstance(credit, TreeGrpoCredit) and credit.terms == "intra"
    if inside and credit.needs_group and not sampler.needs_fork:
        yield Problem(
            ("credit", "terms"),
            f"credit.terms: 'intra' compares the trajectories of one tree, and sampler "
            f"{sampler.type!r} makes trees of one trajectory, so nothing would train. Use 'both' "
            "or 'inter', or a sampler that branches.",
        )
    chosen = any(filter_.type == "best" for filter_ in recipe.filters)
    if isinstance(recipe.credit, ReinforceCredit) and recipe.credit.worth == "one" and not chosen:
        yield Problem(
            ("credit", "worth"),
            "credit.worth: 'one' imitates all that is trained, failures too, unless a filter "
            "chooses. Add `filters: [{type: best}]` (RAFT), or use 'return'.",
        )
    if train.updates_per_iteration > train.tasks_per_iteration:
        yield Problem(
            ("train", "updates_per_iteration"),
            f"train.updates_per_iteration: {train.updates_per_iteration} updates need as many "
            f"groups, and train.tasks_per_iteration is {train.tasks_per_iteration}.",
        )

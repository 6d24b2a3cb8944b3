"""From what a user names (suites or a recipe, a policy, settings) to the plan of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from agentrl.core.errors import DataError, RecipeError, nearest
from agentrl.core.settings import Settings
from agentrl.engine.settings import (
    AnyEngine,
    ScriptedSettings,
    TransformersSettings,
    VllmSettings,
)
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.suites import SUITES, find_suite
from agentrl.evals.tasks import plan_recipe, plan_suite
from agentrl.recipe.load import load
from agentrl.recipe.messages import problems_of
from agentrl.recipe.source import Source, find_recipe, lay_over, shipped_recipes
from agentrl.rollout.settings import RolloutSettings

S = TypeVar("S", bound=Settings)

_SUITE = "suite."
_OBSERVATION_TOKENS = 16_384
"""Room for a prompt and for what the environment says, beside the actions of an episode."""
_OF_A_SUITE = {
    "rollout.limits.max_turns": "max_turns",
    "rollout.sampling.max_tokens_per_turn": "max_tokens_per_turn",
    "rollout.sampling.temperature": "temperature",
    "suites": "samples",
}
_FREE = (
    *("runtime", "cluster", "price*", "rollout.workers", "rollout.concurrency"),
    *("rollout.gpus_per_worker", "rollout.retries", "rollout.max_failure_rate"),
    *("rollout.stall_seconds", "rollout.env_host*", "rollout.limits.*_seconds"),
    *("engine.concurrency", "engine.timeout", "engine.retries", "engine.*backoff"),
    *("engine.patience",),
    *("engine.*_per_minute", "engine.api_key_env", "engine.max_num_seqs", "engine.kv_cache_gib"),
    *("engine.gpu_memory_utilization", "engine.threads", "engine.max_batch"),
    *("engine.batch_window",),
)
"""What may differ when an evaluation is resumed: it decides how fast, not what is played."""


class Wish(NamedTuple):
    """What the command line says of an evaluation.

    `targets` are suites, or one recipe; `settings` are `key=value` of the plan, or `suite.key=`
    of every suite, or of the recipe. `policy` empty: the recipe's own.
    """

    targets: Sequence[str]
    settings: Sequence[str] = ()
    policy: str = ""
    model: str = ""
    tokenizer: str = ""
    engine: str = ""
    data: Path | None = None
    tasks: int | None = None
    samples: int | None = None


def make_plan(wish: Wish) -> EvalPlan:
    """The plan of `wish`, every default filled in.

    Raises:
        RecipeError: nothing, or nothing known, is to be evaluated; no policy; a setting that there
            is not or that cannot be; several samples of a task that would be copies.
        DataError: a suite's rows are not where they are said to be.
    """
    names = list(wish.targets)
    if not names:
        raise RecipeError(
            "name what to evaluate on: suites (`agentrl suite list`) or a recipe, as in "
            "`agentrl eval gsm8k --policy runs/mine`"
        )
    recipes = [name for name in names if _is_recipe(name)]
    if recipes and len(names) > 1:
        raise RecipeError(
            f"{recipes[0]!r} is a recipe, which is evaluated alone (it brings its own engine and "
            f"limits); leave out {', '.join(repr(one) for one in names if one != recipes[0])}"
        )
    plan = _of_recipe(wish, recipes[0]) if recipes else _of_suites(wish)
    for suite in plan.suites:
        copies = suite.samples > 1 and suite.temperature == 0.0
        if copies and not isinstance(plan.engine, ScriptedSettings):
            raise RecipeError(
                f"{suite.tag}: {suite.samples} samples at temperature 0 are copies of one; use 1, "
                "or a temperature above 0, as in suite.temperature=0.7"
            )
    if plan.runtime == "local" and plan.rollout.workers > 1:
        raise RecipeError(
            f"rollout.workers: {plan.rollout.workers} workers need a process each, and runtime is "
            "'local'; use 1, or runtime=ray"
        )
    return plan


def _is_recipe(name: str) -> bool:
    """True for a recipe, False for a suite; raises on what is both or neither."""
    bare = name.partition("@")[0]
    if ":" in bare:
        return False
    try:
        found = find_recipe(name)
    except RecipeError:
        if bare in SUITES:
            return False
        raise RecipeError(
            f"nothing to evaluate on is named {name!r}: no suite (`agentrl suite list`) and no "
            f"recipe, neither shipped (`agentrl recipe list`) nor a file from {Path.cwd()}."
            f"{nearest(bare, [*SUITES, *shipped_recipes()])}"
        ) from None
    if bare in SUITES:
        raise RecipeError(
            f"{name!r} is a suite and a recipe; name the recipe by its file, as in {found}"
        )
    return True


# -- suites ---------------------------------------------------------------------------------------


def _of_suites(wish: Wish) -> EvalPlan:
    if not wish.policy:
        raise RecipeError(
            "a suite needs --policy: a run's folder, a policy's folder, a hub id, the address of a "
            "server (https://host/v1), scripted:oracle or scripted:spoiled_oracle"
        )
    found = [find_suite(name) for name in wish.targets]
    for name, suite in zip(wish.targets, found, strict=True):
        if found.count(suite) > 1:
            raise RecipeError(f"suite {name!r} is named twice; leave one out")
    for setting in wish.settings:
        for key, own in _OF_A_SUITE.items():
            if setting.startswith((f"{key}=", f"{key}.")):
                raise RecipeError(
                    f"override {setting}: suites have their own; write suite.{own}=..., which "
                    "holds for each of them"
                )
    ours = [one for one in wish.settings if not one.startswith(_SUITE)]
    theirs = [one.removeprefix(_SUITE) for one in wish.settings if one.startswith(_SUITE)]
    engine, model = _policy(wish)
    planned = [plan_suite(s, data=wish.data, tasks=wish.tasks, samples=wish.samples) for s in found]
    plan = EvalPlan(
        policy=wish.policy,
        model=model,
        engine=engine,
        suites=tuple(laid_over(one, theirs, prefix=_SUITE) for one in planned),
    )
    plan = laid_over(plan, ours)
    if not any(setting.startswith("rollout.limits.max_tokens=") for setting in ours):
        plan = _with_token_limit(plan)
    return plan


def _policy(wish: Wish) -> tuple[AnyEngine, str]:
    from agentrl.evals.policy import policy_of

    return policy_of(wish.policy, model=wish.model, tokenizer=wish.tokenizer, engine=wish.engine)


def _with_token_limit(plan: EvalPlan) -> EvalPlan:
    """`plan` with room for the longest episode of its suites, within the model's context."""
    limit = _OBSERVATION_TOKENS + max(s.max_turns * s.max_tokens_per_turn for s in plan.suites)
    context = getattr(plan.engine, "max_model_len", None) or context_of(plan.model)
    limit = min(limit, context or limit)
    suites = tuple(
        one.model_copy(update={"max_tokens_per_turn": min(one.max_tokens_per_turn, limit - 1)})
        for one in plan.suites
    )
    limits = plan.rollout.limits.model_copy(update={"max_tokens": limit})
    rollout = plan.rollout.model_copy(update={"limits": limits})
    return plan.model_copy(update={"suites": suites, "rollout": rollout})


def context_of(model: str) -> int | None:
    """Tokens that a model's folder says it can read; None where nothing says it."""
    config = Path(model) / "config.json"
    if not model or not config.is_file():
        return None
    data = json.loads(config.read_text())
    found = data.get("text_config", data).get("max_position_embeddings")
    return found if isinstance(found, int) else None


# -- a recipe -------------------------------------------------------------------------------------


def _of_recipe(wish: Wish, name: str) -> EvalPlan:
    if wish.data is not None:
        raise RecipeError(
            f"--data is for suites; the recipe {name!r} names its data itself, in its `env`"
        )
    for option, given in (("--engine", wish.engine), ("--tokenizer", wish.tokenizer)):
        if given and not wish.policy:
            raise RecipeError(
                f"{option} goes with --policy; the recipe's own policy is served as the recipe "
                f"says: set engine.type={wish.engine or '...'}, or name a --policy"
            )
    for setting in wish.settings:
        if setting.startswith("rollout.sampling.temperature="):
            raise RecipeError(
                f"override {setting}: an evaluation of a recipe samples at its eval.temperature; "
                f"write eval.temperature={setting.partition('=')[2]}"
            )
    served = None if not wish.policy else _policy(wish)
    brings_engine = served is not None and (bool(wish.engine) or not _loads_weights(served[0]))
    later = ("price.", "engine.") if brings_engine else ("price.",)
    settings = [one for one in wish.settings if not one.startswith(later)]
    settings += [] if wish.tasks is None else [f"eval.tasks={wish.tasks}"]
    settings += [] if wish.samples is None else [f"eval.samples={wish.samples}"]
    recipe = load(name, settings, purpose="eval")
    engine, model = recipe.engine, recipe.policy.path
    if served is not None:
        engine, model = (served[0] if brings_engine else recipe.engine), served[1]
    plan = EvalPlan(
        policy=wish.policy or recipe.policy.model,
        model=model,
        engine=engine,
        runtime=recipe.runtime,
        cluster=recipe.cluster,
        rollout=recipe.rollout,
        suites=(plan_recipe(recipe),),
        seed=recipe.seed,
    )
    return laid_over(plan, [one for one in wish.settings if one.startswith(later)])


def _loads_weights(engine: AnyEngine) -> bool:
    return isinstance(engine, (VllmSettings, TransformersSettings))


# -- settings -------------------------------------------------------------------------------------


def laid_over(settings: S, overrides: Sequence[str], *, prefix: str = "") -> S:
    """`settings` with `overrides` (`key.sub=value`, the value as YAML) laid over them.

    Raises RecipeError with one line for each mistake; `prefix` stands before each key in it.
    """
    if not overrides:
        return settings
    source = Source("command line", settings.model_dump(mode="json"))
    for override in overrides:
        lay_over(source, override)
    cls = type(settings)
    try:
        return cls.model_validate_json(json.dumps(source.data), strict=True)
    except ValidationError as error:
        problems = problems_of(error, cls, source)
        labels = [
            source.origin(one.place).replace("override ", f"override {prefix}", 1)
            for one in problems
        ]
        raise RecipeError(
            "\n".join(
                f"{label}: {one.message}" for label, one in zip(labels, problems, strict=True)
            )
        ) from error


def rollout_of(plan: EvalPlan, suite: PlannedSuite) -> RolloutSettings:
    """The plan's rollout settings with the limits of `suite`."""
    rollout = plan.rollout
    return rollout.model_copy(
        update={
            "sampling": rollout.sampling.model_copy(
                update={
                    "max_tokens_per_turn": suite.max_tokens_per_turn,
                    "temperature": suite.temperature,
                }
            ),
            "limits": rollout.limits.model_copy(update={"max_turns": suite.max_turns}),
        }
    )


# -- resume ---------------------------------------------------------------------------------------


def require_same(stored: EvalPlan, wanted: EvalPlan, where: Path) -> None:
    """Raise DataError where the two would not play the same, naming the settings that differ."""
    before, now = dict(_flat(stored)), dict(_flat(wanted))
    told = [
        f"{key} ({before.get(key, 'not set')!r} there, {now.get(key, 'not set')!r} now)"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and not any(fnmatchcase(key, one) for one in _FREE)
    ]
    if told:
        raise DataError(
            f"{where} holds another evaluation, which this one cannot go on with: they differ in "
            f"{'; '.join(told)}. Choose another --out"
        )


def _flat(plan: EvalPlan) -> Iterator[tuple[str, Any]]:
    data = plan.model_dump(mode="json")
    suites = {one.tag: part for one, part in zip(plan.suites, data.pop("suites"), strict=True)}
    yield from _leaves(data, "")
    for tag, part in suites.items():
        yield from _leaves(part, f"{tag} ")
    yield "suites", list(suites)


def _leaves(data: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield before + key, value

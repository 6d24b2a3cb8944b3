"""Whether the expected band of a recipe still applies under the overrides of a run."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.recipe.schema import Recipe

_HARMLESS = (
    *("name", "expect", "seed", "runtime", "cluster", "log", "policy.probe_bound"),
    *("rollout.workers", "rollout.concurrency", "rollout.gpus_per_worker", "rollout.env_hosts"),
    *("rollout.env_host_memory_gib", "rollout.retries", "rollout.max_failure_rate"),
    *("rollout.stall_seconds", "learner.threads", "engine.threads"),
    *("train.iterations", "train.max_generated_tokens", "train.max_tool_calls"),
    *("train.save_every", "train.keep_checkpoints", "eval.every", "eval.at_start", "eval.at_end"),
)
"""What changes when or where a run does something, or for how long, but not what it learns.

The length is among it, since the band says after how many tokens it holds.
"""


def without_stale_band(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """`recipe` without its band where `overrides` change what it learns, or how it is scored.

    The text of `expect` then says so, in the run's stored recipe too.
    """
    if recipe.band is None or any(_within(one, "band") for one in overrides):
        return recipe
    telling = [one for one in overrides if not any(_within(one, key) for key in _HARMLESS)]
    if not telling:
        return recipe
    if any(_within(one, "expect") for one in overrides):
        return recipe.model_copy(update={"band": None})
    note = f"does not apply: changed by {', '.join(telling)}"
    expect = f"{recipe.expect} ({note})" if recipe.expect else f"the recipe's band {note}"
    return recipe.model_copy(update={"band": None, "expect": expect})


def _within(override: str, key: str) -> bool:
    """Whether `override` (`key.sub=value`) sets `key` or something inside of it."""
    name = override.partition("=")[0]
    return name == key or name.startswith(f"{key}.")

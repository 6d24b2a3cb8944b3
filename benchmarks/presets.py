"""Does every preset learn? Each on a small task of two turns, over several seeds.

    python benchmarks/presets.py --seeds 0 1 2 3 4
    python benchmarks/presets.py --presets grpo gspo --tokens 60000
    python benchmarks/presets.py --updates 4 --presets grpo gspo gmpo cispo

The task is `demo/door` with three doors: the right mat must be lifted before the way can be known.
The policy is a table (`agentrl.trainer.rehearsal`), so a run takes seconds; sampler, filters,
credit, loss and updates are those of the preset. A run has learned when the mean return of three
iterations in a row is 95 % of the optimum, which is 1; there it ends. `pass_at_k` is scored by what
it is for, the mean of the groups' best. All presets have the same learning rate and the same
tokens; an iteration has as many trajectories for each of them, to within one task. With one update
an iteration every importance ratio is 1; `--updates` makes more.
"""

from __future__ import annotations

import argparse
from typing import Any

from agentrl.recipe.presets import PRESETS, with_preset
from agentrl.recipe.schema import Recipe
from agentrl.trainer.rehearsal import Rehearsal, best_return, mean_return, rehearse

LEARNED = 0.95
"""Mean return of three iterations in a row; the optimum is 1."""
TRAJECTORIES = 256
"""Of an iteration, over all its tasks."""
OWN: dict[str, dict[str, Any]] = {
    # Its constant is the limit on a trajectory's tokens, its baseline half of a reward of 1.
    "dr_grpo": {"learner": {"loss": {"constant": 4.0}}},
    "reinforce_rej": {"credit": {"baseline": 0.5}},
    # Two turns: widths of the turns that there are.
    "spo": {"sampler": {"widths": [4, 2]}},
    "tree_po": {"sampler": {"widths": [4, 2]}},
    # A critic that learns as fast as the policy, and feedback in words that the table has.
    "ppo": {"learner": {"critic": {"learning_rate": 0.15}}},
    "vagen": {"learner": {"critic": {"learning_rate": 0.15}}},
    "ufo": {
        "learner": {"critic": {"learning_rate": 0.15}},
        "env": {"wrappers": [{"type": "try_again", "feedback": "go somewhere"}]},
    },
    # What counts as right, and a limit that is one here.
    "dapo": {
        "eval": {"score": "opened"},
        "train": {"overlong": {"length": 8, "buffer": 4, "penalty": 1.0}},
    },
    # Forgetting from the first iterations on, by a step that a table notices.
    "eepo": {"sampler": {"entropy_below": 9.0, "rate": 1.0}},
}
"""What a preset leaves to the recipe."""


def recipe_of(preset: str, *, seed: int, tokens: int, rate: float, updates: int = 1) -> Recipe:
    """The recipe of one run."""
    own: dict[str, Any] = {
        "name": preset,
        "preset": preset,
        "seed": seed,
        "env": {"id": "demo/door", "doors": 3},
        "policy": {"model": "tiny/search"},
        "rollout": {"sampling": {"max_tokens_per_turn": 2}, "limits": {"max_tokens": 32}},
        "learner": {"optimizer": {"learning_rate": rate, "warmup_steps": 0}},
        "train": {
            "iterations": 100_000,
            "max_generated_tokens": tokens,
            "updates_per_iteration": updates,
        },
    }
    for section, values in OWN.get(preset, {}).items():
        own[section] = own.get(section, {}) | values
    data, _ = with_preset(own)
    size = Recipe.model_validate(data | {"train": {}}).sampler.trajectories
    own["train"]["tasks_per_iteration"] = max(1, TRAJECTORIES // size)
    data, _ = with_preset(own)
    return Recipe.model_validate(data)


def told(preset: str, runs: list[Rehearsal]) -> str:
    """One line: how many runs learned, after how many tokens, and the last returns."""
    reached = [run.reached(LEARNED) for run in runs]
    known = sorted(tokens for tokens in reached if tokens is not None)
    ends = " ".join(f"{sum(run.returns[-3:]) / 3:.2f}" for run in runs)
    span = f"{known[0]:>7,} - {known[-1]:>7,}" if known else "never".rjust(17)
    return f"{preset:22} {len(known)} of {len(runs)}   {span}   {ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tokens", type=int, default=80_000)
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--updates", type=int, default=1, help="updates of an iteration")
    options = parser.parse_args()
    print("preset                 learned  tokens until then   returns at the end, by seed")
    for preset in options.presets:
        score = best_return if preset == "pass_at_k" else mean_return
        settings = {"tokens": options.tokens, "rate": options.rate, "updates": options.updates}
        runs = [
            rehearse(recipe_of(preset, seed=seed, **settings), until=LEARNED, score=score)
            for seed in options.seeds
        ]
        print(told(preset, runs), flush=True)


if __name__ == "__main__":
    main()

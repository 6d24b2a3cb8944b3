"""What training on one answer does to further answers, and what being asked again does to that.

    python benchmarks/diversity.py --seeds 0 1 2 3 4

A ball lies under one of five cups, under some of them more often; which one, nothing tells. A
policy without memory (a table, `agentrl.trainer.rehearsal`) is trained to answer once. Then it goes
on for the same number of tokens in two ways: as before (the control), or asked again after a wrong
answer, up to five times (UFO's wrapper `try_again` with its own reward, arXiv:2507.14295). Before
and after, all get up to five answers. Unique-answer ratio: different answers over answers of those
who were asked more than once; solved: the ball was found.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
from collections.abc import Sequence
from typing import Any

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, Task
from agentrl.learner.tabular import Table
from agentrl.recipe.schema import Recipe
from agentrl.trainer.rehearsal import rehearse

CUPS = ("first", "second", "third", "fourth", "fifth")
ODDS = (35, 25, 20, 12, 8)
QUESTION = "under which"
TRY_AGAIN = {"type": "try_again", "attempts": 5, "feedback": QUESTION}


class CupsEnv(Env):
    """One question and one answer: the cup that the episode's seed hid the ball under."""

    forkable = "copy"
    words = ("under", "which", *CUPS)

    def tasks(self, split: str) -> Sequence[Task]:
        """One: the seed makes the difference."""
        return [Task(f"{split}-cups")]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Hide the ball."""
        self._cup = random.Random(seed).choices(CUPS, ODDS)[0]
        return (Message.of("user", QUESTION),)

    async def step(self, action: str) -> StepResult:
        """Look under the cup that is named first."""
        found = float(action.split()[:1] == [self._cup])
        return StepResult((), found, True, False, StepInfo(rewards={"found": found}))

    async def fork(self) -> CupsEnv:
        """A copy."""
        return copy.copy(self)


def recipe(seed: int, tokens: int, *, again: bool, rate: float) -> Recipe:
    """GRPO on the cups, with one answer or with up to five."""
    wrappers = {"wrappers": [TRY_AGAIN]} if again else {}
    settings: dict[str, Any] = {
        "name": "cups",
        "seed": seed,
        "env": {"id": f"{__name__}:CupsEnv", **wrappers},
        "policy": {"model": "tiny/search"},
        "sampler": {"type": "chain", "trajectories": 16},
        "credit": {"type": "grpo", "scale": "none"},
        "rollout": {"sampling": {"max_tokens_per_turn": 2}, "limits": {"max_tokens": 64}},
        "learner": {"optimizer": {"learning_rate": rate, "warmup_steps": 0}},
        "train": {
            "iterations": 100_000,
            "tasks_per_iteration": 16,
            "max_generated_tokens": tokens,
        },
    }
    return Recipe.model_validate(settings)


def measured(table: Table, seed: int) -> tuple[float, float]:
    """Unique-answer ratio and share solved within five answers, over 1,600 episodes."""
    settings = recipe(10_000 + seed, 1, again=True, rate=1e-12)
    once = settings.train.model_copy(update={"iterations": 1, "tasks_per_iteration": 100})
    found = rehearse(settings.model_copy(update={"train": once}), table=copy.deepcopy(table))
    ends = [one.turns[-1].metrics for group in found.last for one in group.trajectories()]
    asked = [end for end in ends if end["answers"] > 1]
    ratio = sum(end["unique_answers"] / end["answers"] for end in asked) / max(1, len(asked))
    return ratio, sum(end["solved"] for end in ends) / len(ends)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tokens", type=int, default=40_000, help="of each of the two trainings")
    parser.add_argument("--rate", type=float, default=0.1)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in options.seeds:
        single = rehearse(recipe(seed, options.tokens, again=False, rate=options.rate)).table
        tables = {"untrained": Table(len(CupsEnv.words) + 1), "answers once": single}
        for name, again in (("goes on as before", False), ("tries again", True)):
            settings = recipe(1000 + seed, options.tokens, again=again, rate=options.rate)
            tables[name] = rehearse(settings, table=copy.deepcopy(single)).table
        for name, table in tables.items():
            found.setdefault(name, []).append(measured(table, seed))
    print(f"{'policy':20} unique-answer ratio      solved within five answers")
    for name, several in found.items():
        ratios, solved = zip(*several, strict=True)
        print(f"{name:20} {spread(ratios)}           {spread(solved)}")


if __name__ == "__main__":
    main()

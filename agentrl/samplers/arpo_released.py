"""ARPO's branching as its released code does it, which is not as its paper says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from agentrl.core.settings import Settings
from agentrl.core.types import Task, TrajectoryTree
from agentrl.engine.base import Completion
from agentrl.rollout.player import StartEpisode
from agentrl.rollout.seeds import derive
from agentrl.samplers.branching import Branching, Line
from agentrl.samplers.lines import turn_seed


class ArpoReleasedSampler(Settings):
    """ARPO (arXiv:2507.19849) by the rule of its released code, to compare with published runs.

    After each turn that goes on, a line gets one branch from its new state if

        clip(u - entropy_weight * (H - H_init), 0, 1) <= branch_probability,   u from [0, 1)
        H = sum of the entropies of the turn's first `probe_tokens` tokens / ln(vocabulary size)

    with H_init the line's own first H. So the entropy is that of the text before the tool's
    answer, where the paper (`arpo`) measures the text after it; the draw is random; and after its
    first turn a line branches with `branch_probability`, a branch too. Turns are served round by
    round and lines in the order in which they came to be. When all lines have ended, one fresh
    trajectory at a time is played, which may branch as well, until there are `trajectories`.

    Differs from the release: entropies are the engine's, over the whole vocabulary where it gives
    them (there a sum over the ten likeliest tokens, which is less); H_init never comes from an
    earlier batch; a missing trajectory is played and not a copy of the last; two is the only
    branch factor, as in its scripts; and rounds wait for nobody. Without entropies nothing
    branches. Limits of turns and tool calls are the recipe's.
    """

    type: Literal["arpo_released"] = "arpo_released"
    trajectories: int = Field(default=16, ge=1)
    initial: int = Field(default=8, ge=1)
    branch_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    entropy_weight: float = Field(default=0.2, ge=0.0)
    probe_tokens: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _starts_within_budget(self) -> Self:
        if self.initial > self.trajectories:
            raise ValueError(
                f"initial = {self.initial} trajectories are more than trajectories = "
                f"{self.trajectories}, the whole budget; lower the first or raise the second"
            )
        return self

    @property
    def needs_fork(self) -> bool:
        """Branches start in the middle of an episode."""
        return self.trajectories > self.initial

    def entropy(self, completion: Completion, vocabulary_size: int) -> float:
        """The H of the class docstring; NaN when unknown."""
        if completion.entropy_kind == "none":
            return math.nan
        total = float(completion.entropies[: self.probe_tokens].sum(dtype=float))
        return total / (math.log(vocabulary_size) if vocabulary_size > 1 else 1.0)

    def wants_branch(self, entropy: float, initial: float, *, seed: int) -> bool:
        """The decision, a function of its arguments alone."""
        drawn = random.Random(seed).random() - self.entropy_weight * (entropy - initial)
        if math.isnan(drawn):
            return False
        return min(max(drawn, 0.0), 1.0) <= self.branch_probability

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """The trees of the initial lines in order, then those of the fresh ones."""
        return await _Lines(self, task, start, seed).sample()


class _Lines(Branching):
    """One task. Names sort as lines came to be: (0, number), then (first turn, parent's name)."""

    def __init__(
        self, sampler: ArpoReleasedSampler, task: Task, start: StartEpisode, seed: int
    ) -> None:
        super().__init__(task, start, seed)
        self.sampler = sampler

    async def sample(self) -> list[TrajectoryTree]:
        left, started = self.sampler.trajectories, 0
        wave = self.sampler.initial
        try:
            while left > 0:
                numbers = range(started, started + wave)
                self.open(
                    budget=left - wave, branch_factor=2, lines=[(0, number) for number in numbers]
                )
                for number in numbers:
                    self.spawn(self.begin((0, number), number))
                await self.finish()
                assert self.arbiter is not None
                left, started, wave = left - wave - self.arbiter.granted, started + wave, 1
        finally:
            await self.close()
        return self.trees()

    async def advance(self, line: Line) -> None:
        """Play a line to its end; after each turn it may branch, from what it then sees."""
        first: float | None = None
        size = line.episode.vocabulary_size
        while completion := await line.episode.propose(
            seed=turn_seed(self.seed, line.key, line.turn)
        ):
            entropy = self.sampler.entropy(completion, size)
            first = entropy if first is None else first
            if await line.episode.play(completion) is not None:
                break
            draw = derive(self.seed, "branch", *line.key, "at", line.turn)
            branches: list[Line] = []
            assert self.arbiter is not None
            if not self.arbiter.exhausted and self.sampler.wants_branch(entropy, first, seed=draw):
                key = (line.turn + 1, *line.key)
                branches = await self.fork(line, [key], turn=line.turn + 1)
            self.report(line.key, line.turn, branches)
            line.turn += 1

"""Branches where the policy grew uncertain after an observation: what ARPO and AEPO share."""

from __future__ import annotations

import math
import random
from typing import Literal, Self

from pydantic import Field, model_validator

from agentrl.core.settings import Settings
from agentrl.core.types import ROOT, Task, TrajectoryTree
from agentrl.engine.base import Completion
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import StartEpisode
from agentrl.rollout.seeds import derive
from agentrl.samplers.branching import Branching, Line
from agentrl.samplers.lines import play_to_end, turn_seed


class EntropySampler(Settings):
    """Settings of a sampler that compares a turn's entropy with that of its tree's first turn."""

    type: str
    trajectories: int = Field(default=16, ge=1)
    initial: int | None = None
    alpha: float = 0.5
    beta: float = Field(default=0.2, ge=0.0)
    threshold: float = 0.5
    branch_factor: int = Field(default=2, ge=2)
    probe_tokens: int = Field(default=20, ge=1)
    decision: Literal["threshold", "bernoulli"] = "threshold"

    @model_validator(mode="after")
    def _starts_within_budget(self) -> Self:
        if self.initial is not None and self.initial > self.trajectories:
            raise ValueError(
                f"initial = {self.initial} trajectories are more than trajectories = "
                f"{self.trajectories}, the whole budget; lower the first or raise the second"
            )
        return self

    @property
    def needs_fork(self) -> bool:
        """Branches start in the middle of an episode."""
        return self.trajectories > (self.initial or 1)

    def probe_entropy(self, completion: Completion) -> float:
        """Mean entropy in nats of the first `probe_tokens` tokens; NaN when unknown."""
        if completion.entropy_kind == "none":
            return math.nan
        return float(completion.entropies[: self.probe_tokens].mean(dtype=float))

    def branch_probability(
        self, entropy: float, initial: float, vocabulary_size: int, *, streak: int = 0
    ) -> float:
        """P of a turn that comes `streak` turns in a row after ones that branched.

        May leave [0, 1]; NaN when an entropy is.
        """
        scale = math.log(vocabulary_size) if vocabulary_size > 1 else 1.0
        return (self.alpha + self.beta * (entropy - initial) / scale) * self.damping(streak)

    def damping(self, streak: int) -> float:
        """What P is multiplied by after `streak` branching turns in a row."""
        return 1.0

    def wants_branch(self, probability: float, *, seed: int) -> bool:
        """The decision, a function of its arguments alone; `seed` is read by "bernoulli" only."""
        if self.decision == "threshold":
            return probability > self.threshold
        return random.Random(seed).random() < probability


class EntropyLines(Branching):
    """One task: its lines, each of which forks before an action that looks uncertain."""

    def __init__(self, sampler: EntropySampler, task: Task, start: StartEpisode, seed: int) -> None:
        super().__init__(task, start, seed)
        self.sampler = sampler
        self.first_entropy: dict[int, float] = {}  # by tree

    async def sample(self) -> list[TrajectoryTree]:
        """The trees of the initial lines in order, then those of the top-ups."""
        total = self.sampler.trajectories
        try:
            initial = await self.initial()
            self.open(
                budget=total - initial,
                branch_factor=self.sampler.branch_factor,
                lines=[(index,) for index in range(initial)],
            )
            for index in range(len(self._trees), initial):
                self.spawn(self.begin((index,), index))
            await self.finish()
            assert self.arbiter is not None
            missing = self.arbiter.budget - self.arbiter.granted
            fresh = await all_of(self._fresh(index) for index in range(total - missing, total))
        finally:
            await self.close()
        return self.trees() + fresh

    async def initial(self) -> int:
        """How many lines start from the prompt before any branch does."""
        assert self.sampler.initial is not None
        return self.sampler.initial

    async def advance(self, line: Line) -> None:
        """Play a line to its end; a branch's first turn is no chance to branch."""
        while completion := await line.episode.propose(
            seed=turn_seed(self.seed, line.key, line.turn)
        ):
            if line.turn != line.born:
                await self.consider(line, completion)
            if await line.episode.play(completion) is not None:
                break
            line.turn += 1

    async def consider(self, line: Line, completion: Completion) -> None:
        """Report the turn, with forks from before the action if it asks for any."""
        asks = self._asks(line, completion)
        line.streak = line.streak + 1 if asks else 0
        branches: list[Line] = []
        if asks and not (self.arbiter is not None and self.arbiter.exhausted):
            numbers = range(self.sampler.branch_factor - 1)
            keys = [(*line.key, line.turn, number) for number in numbers]
            branches = await self.fork(line, keys, turn=line.turn)
        self.report(line.key, line.turn, branches)

    def _asks(self, line: Line, completion: Completion) -> bool:
        """Whether the entropy asks for a branch; a tree's first action sets H_init instead."""
        entropy = self.sampler.probe_entropy(completion)
        if line.episode.node == ROOT:
            self.first_entropy.setdefault(line.tree, entropy)
            return False
        probability = self.sampler.branch_probability(
            entropy,
            self.first_entropy[line.tree],
            line.episode.vocabulary_size,
            streak=line.streak,
        )
        draw = derive(self.seed, "branch", *line.key, "at", line.turn)
        return self.sampler.wants_branch(probability, seed=draw)

    async def _fresh(self, index: int) -> TrajectoryTree:
        episode = await self.start(self.task, self.seed)
        return await play_to_end(episode, seed=self.seed, key=(index,))

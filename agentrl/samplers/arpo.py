"""ARPO's entropy-based branching (arXiv:2507.19849, section 3; rule by rule in spec/agentic.md 3).

A line is a trajectory in the making: one of the first `initial`, a branch, or a top-up.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from agentrl.core.settings import Settings
from agentrl.core.types import ROOT, Task, TrajectoryTree
from agentrl.engine.base import Completion
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.rollout.seeds import derive
from agentrl.samplers.arbiter import Arbiter
from agentrl.samplers.lines import LineKey, in_order, play_to_end, turn_seed


class ArpoSampler(Settings):
    """`initial` trajectories, and branches where the policy grew uncertain after a tool's answer.

    ARPO (arXiv:2507.19849, section 3). The entropy H_t of the first `probe_tokens` tokens of the
    action that follows an observation is compared with H_init, the same of the first action of
    its tree:

        dH = (H_t - H_init) / ln(vocabulary size),   P = alpha + beta * dH

    Where P > `threshold` (or, with `decision = "bernoulli"`, with probability P cut to [0, 1])
    `branch_factor` - 1 siblings of the action are sampled from the same state. Branches may
    branch in turn, from their second action on. When all lines have ended before `trajectories`
    exist, fresh ones from the prompt fill the budget.

    Where the sources leave room: H is the mean entropy of a token, not the sum, so that short
    actions compare with long ones; the paper's "normalise" is read as a division by the largest
    entropy there is, ln(vocabulary size). With alpha = threshold only the sign of dH matters.
    Every observation counts as a tool's answer. Without entropies (an engine whose
    `entropy_kind` is "none") nothing branches.

    When the budget is short, earlier turns go first, and within a turn lines in order of their
    names; so a seed fixes the trees whatever finishes first. A line never waits for that: only a
    branch does (see `Arbiter`).
    """

    type: Literal["arpo"] = "arpo"
    trajectories: int = Field(default=16, ge=1)
    initial: int = Field(default=8, ge=1)
    alpha: float = 0.5
    beta: float = Field(default=0.2, ge=0.0)
    threshold: float = 0.5
    branch_factor: int = Field(default=2, ge=2)
    probe_tokens: int = Field(default=20, ge=1)
    decision: Literal["threshold", "bernoulli"] = "threshold"

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

    def probe_entropy(self, completion: Completion) -> float:
        """Mean entropy in nats of the first `probe_tokens` tokens; NaN when unknown."""
        if completion.entropy_kind == "none":
            return math.nan
        return float(completion.entropies[: self.probe_tokens].mean(dtype=float))

    def branch_probability(self, entropy: float, initial: float, vocabulary_size: int) -> float:
        """P of the class docstring; may leave [0, 1]. NaN when an entropy is."""
        scale = math.log(vocabulary_size) if vocabulary_size > 1 else 1.0
        return self.alpha + self.beta * (entropy - initial) / scale

    def wants_branch(self, probability: float, *, seed: int) -> bool:
        """The decision, a function of its arguments alone; `seed` is read by "bernoulli" only."""
        if self.decision == "threshold":
            return probability > self.threshold
        return random.Random(seed).random() < probability

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """The trees of the initial lines in order, then those of the top-ups."""
        return await _Run(self, task, start, seed).sample()


class _Run:
    """One task: its lines, and the arbiter that hands out branches."""

    def __init__(self, sampler: ArpoSampler, task: Task, start: StartEpisode, seed: int) -> None:
        self.sampler, self.task, self.start, self.seed = sampler, task, start, seed
        self.arbiter = Arbiter(
            budget=sampler.trajectories - sampler.initial,
            branch_factor=sampler.branch_factor,
            lines=[(index,) for index in range(sampler.initial)],
        )
        self.trees: dict[int, TrajectoryTree] = {}  # by initial line
        self.keys: dict[int, dict[int, LineKey]] = {}  # by initial line, the line of each node
        self.first_entropy: dict[int, float] = {}  # by initial line
        self.tasks: set[asyncio.Task[None]] = set()

    async def sample(self) -> list[TrajectoryTree]:
        initial, total = self.sampler.initial, self.sampler.trajectories
        try:
            for index in range(initial):
                self._run(self._main(index))
            while self.tasks:
                done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
                self.tasks -= done
                for task in done:
                    task.result()
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
        trees = [in_order(self.trees[index], self.keys[index]) for index in range(initial)]
        missing = self.arbiter.budget - self.arbiter.granted
        return trees + await all_of(self._fresh(index) for index in range(total - missing, total))

    def _run(self, work: Coroutine[object, object, None]) -> None:
        self.tasks.add(asyncio.ensure_future(work))

    async def _fresh(self, index: int) -> TrajectoryTree:
        episode = await self.start(self.task, self.seed)
        return await play_to_end(episode, seed=self.seed, key=(index,))

    async def _main(self, index: int) -> None:
        episode = await self.start(self.task, self.seed)
        self.trees[index], self.keys[index] = episode.tree, {}
        await self._line((index,), episode, turn=0)

    async def _branch(self, key: LineKey, episode: Episode, *, turn: int) -> None:
        """Wait for the arbiter's word, then play the branch or drop it."""
        granted = False
        try:
            granted = await self.arbiter.verdict(key)
        finally:
            if not granted:
                await episode.close()
        if granted:
            await self._line(key, episode, turn=turn)

    async def _line(self, key: LineKey, episode: Episode, *, turn: int) -> None:
        """Play a line to its end from `turn` on; a branch's first turn is no chance to branch."""
        born = turn if len(key) > 1 else None
        try:
            while completion := await episode.propose(seed=turn_seed(self.seed, key, turn)):
                if turn != born:
                    await self._consider(key, episode, completion, turn)
                if await episode.play(completion) is not None:
                    break
                turn += 1
        finally:
            await episode.close()
            self.keys[key[0]].update(dict.fromkeys(episode.added, key))
            self.arbiter.ended(key)

    async def _consider(
        self, key: LineKey, episode: Episode, completion: Completion, turn: int
    ) -> None:
        """Report the turn to the arbiter, with forks from before the action if it asks for any."""
        if self._asks(key, episode, completion, turn) and not self.arbiter.exhausted:
            names = [(*key, turn, number) for number in range(self.sampler.branch_factor - 1)]
            twins = [await episode.fork() for _ in names]
            self.arbiter.wanted(key, turn, names)
            for name, twin in zip(names, twins, strict=True):
                self._run(self._branch(name, twin, turn=turn))
        else:
            self.arbiter.passed(key, turn)

    def _asks(self, key: LineKey, episode: Episode, completion: Completion, turn: int) -> bool:
        """Whether the entropy asks for a branch; a tree's first action sets H_init instead."""
        entropy = self.sampler.probe_entropy(completion)
        if episode.node == ROOT:
            self.first_entropy.setdefault(key[0], entropy)
            return False
        probability = self.sampler.branch_probability(
            entropy, self.first_entropy[key[0]], episode.vocabulary_size
        )
        draw = derive(self.seed, "branch", *key, "at", turn)
        return self.sampler.wants_branch(probability, seed=draw)

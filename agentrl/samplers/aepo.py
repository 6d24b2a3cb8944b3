"""AEPO's entropy-balanced branching: a split of the budget that is measured, and a penalty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field

from agentrl.core.types import Task, TrajectoryTree
from agentrl.engine.base import Completion
from agentrl.rollout.player import StartEpisode
from agentrl.samplers.branching import Line
from agentrl.samplers.entropy import EntropyLines, EntropySampler


class AepoSampler(EntropySampler):
    """ARPO's branches with a measured number of initial lines, and fewer branches in a row.

    AEPO (arXiv:2510.14545, section 4.1). One trajectory is played first; its entropies, H_root of
    its first action and H_tool of those that follow an observation, split the budget of
    M = `trajectories`:

        m = M * sigmoid(split * (H_root - mean H_tool)),   rounded, within [1, M]

    lines start from the prompt, the played one among them, and M - m may be branches. With
    `initial` the split is fixed, as in the released scripts. A turn branches as in ARPO (dH,
    `threshold`, `decision`, top-ups from the prompt), by

        P = (alpha + beta * dH) * max(0, 1 - penalty * l)

    with l the number of turns directly before it on its path that asked for a branch. The paper's
    gamma is `beta`.

    Where the sources leave room: entropies are means over a token in nats, so `split` is 1 (0.5
    in the released code, whose sums over 20 tokens divided by ln(vocabulary size) are about 1.7
    times as large); a first trajectory without an observation, or an engine without entropies,
    gives half the budget to each side. The paper leaves the penalty's form open; it is the
    released one, 0.05 each. Differs from the released code: l is counted along a path and not for
    the prompt as a whole, a fresh trajectory is no branch, and m is the paper's (the code adds 1
    and cuts the fraction off). A turn counts in l when it asked, whether or not a branch was left
    to be had, so that no line waits.
    """

    type: Literal["aepo"] = "aepo"
    initial: int | None = Field(default=None, ge=1)
    split: float = Field(default=1.0, ge=0.0)
    penalty: float = Field(default=0.05, ge=0.0)

    def damping(self, streak: int) -> float:
        """1 - penalty * streak, at least 0."""
        return max(0.0, 1.0 - self.penalty * streak)

    def initial_lines(self, entropies: Sequence[float]) -> int:
        """The m of the class docstring, for the entropies of a trajectory's actions in order."""
        gap = entropies[0] - fmean(entropies[1:]) if len(entropies) > 1 else 0.0
        gap = 0.0 if math.isnan(gap) else gap
        share = 0.5 * (1.0 + math.tanh(0.5 * self.split * gap))  # the sigmoid, without overflow
        return min(max(round(self.trajectories * share), 1), self.trajectories)

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """The trees of the initial lines in order, then those of the top-ups."""
        return await _Lines(self, task, start, seed).sample()


class _Lines(EntropyLines):
    """ARPO's lines; the first is played alone, and its wishes are heard once the split is known."""

    def __init__(self, sampler: AepoSampler, task: Task, start: StartEpisode, seed: int) -> None:
        super().__init__(sampler, task, start, seed)
        self.split = sampler.initial_lines
        self.seen: list[float] = []  # of the first line, until the split is known

    async def initial(self) -> int:
        """As many as the settings say, or as the first line does."""
        if self.sampler.initial is not None:
            return self.sampler.initial
        await self.begin((0,), 0)
        return self.split(self.seen)

    async def consider(self, line: Line, completion: Completion) -> None:
        """Notes the entropy while the first line is played alone."""
        if self.arbiter is None:
            self.seen.append(self.sampler.probe_entropy(completion))
        await super().consider(line, completion)

"""ARPO's entropy-based branching, by the rule of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.player import StartEpisode
from agentrl.samplers.entropy import EntropyLines, EntropySampler


class ArpoSampler(EntropySampler):
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
    initial: int = Field(default=8, ge=1)

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """The trees of the initial lines in order, then those of the top-ups."""
        return await EntropyLines(self, task, start, seed).sample()

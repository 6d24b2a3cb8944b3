"""TreeRL's trees: whole chains first, then forks at the tokens that were least likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.samplers.growth import Growth


class Fork(NamedTuple):
    """Where a node is sampled again: from its token `at` on, those before it are kept."""

    node: int
    at: int


class TreeRlSampler(Settings):
    """`trees` chains, each of which forks `rounds` times at its `expansions` least likely tokens.

    The entropy-guided tree search of TreeRL (EPTree, arXiv:2506.11902: 6, 1, 2 and 2). A round
    takes the tokens of a tree with the largest -log p, p being the policy's probability of the
    token that was sampled, and samples each of them anew `continuations` times, with all that
    follows, to the end: `trees` x (1 + `expansions` x `continuations` x `rounds`) leaves. The first
    token of a node is no candidate: what stands before a turn, or was forked at before, is not
    forked at again. Ties go to the token that comes first; where there are fewer, as many.

    So forks lie within turns, at any token: the turn is split there, and its first half is shared.
    The continuations are draws of the policy from there; what they stand beside is there because
    it began with an unlikely token, so the mean over a fork is not the policy's.

    A node that failed is not sampled again. Forks of the environment are parked as by `tree`, one
    for each turn; a round waits for the one before.

    Differs from the released code: tokens after an answer's mark are candidates too (an
    environment's business), and no leaf is dropped (there 16 of 30 are trained).
    """

    type: Literal["tree_rl"] = "tree_rl"
    trees: int = Field(default=6, ge=1)
    expansions: int = Field(default=2, ge=0)
    continuations: int = Field(default=2, ge=1)
    rounds: int = Field(default=1, ge=1)

    @property
    def trajectories(self) -> int:
        """Leaves of all trees of a task."""
        return self.trees * (1 + self.expansions * self.continuations * self.rounds)

    @property
    def needs_fork(self) -> bool:
        """Continuations start in the middle of an episode."""
        return self.expansions > 0

    def chosen(self, tree: TrajectoryTree, candidates: Sequence[int]) -> list[Fork]:
        """The least likely tokens of the nodes `candidates`, the least likely first."""
        found = [
            (float(logprob), order, Fork(node, at))
            for order, node in enumerate(candidates)
            for at, logprob in enumerate(tree.turns[node].logprobs)
            if at > 0
        ]
        return [fork for _, _, fork in sorted(found)[: self.expansions]]

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """The trees in order."""

        async def one(index: int) -> TrajectoryTree:
            return await self._search(await start(task, seed), seed=seed, index=index)

        return await all_of(one(index) for index in range(self.trees))

    async def _search(self, episode: Episode, *, seed: int, index: int) -> TrajectoryTree:
        growth = Growth(episode, seed=seed)
        try:
            await growth.line((index,), episode, 0, parks=self.needs_fork)
            for number in range(self.rounds if self.needs_fork else 0):
                forks = self.chosen(growth.tree, growth.sampled())
                await growth.resample(
                    [fork for fork in growth.split(forks) for _ in range(self.continuations)],
                    first=number * self.expansions * self.continuations,
                    last=number + 1 == self.rounds,
                )
        finally:
            await growth.close()
        return growth.ordered()

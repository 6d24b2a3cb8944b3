"""AT2PO's trees: whole chains first, then the least certain turns sampled again, round by round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import ROOT, Task, TrajectoryTree, Turn
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.samplers.growth import Growth


class At2poSampler(Settings):
    """One tree: `initial` chains, and `rounds` in which its `expansions` least certain turns fork.

    AT2PO (arXiv:2601.04767). After each round every turn n that is no leaf has the score

        H(n) - penalty * (siblings of n),   H(n) = mean of -log p over the tokens of the action

    with p the policy's probability of the token that was sampled. The `expansions` best are
    sampled anew, each from the state that it acted from, and played to the end: a sibling of the
    turn, not a child. So the tree of a task has initial + `expansions` x `rounds` leaves. Ties go
    to the turn that comes first. Where fewer turns are no leaves, their list is gone through again
    from its start; where there are none, the new lines start from the prompt.

    Differs from the released code: the prompt competes with no turn (there it does, with an H of
    0), and no leaf is dropped or copied to fill the budget (a failed line leaves one fewer).

    Forks are parked as by `tree`. Lines of a round do not wait for each other; a round waits for
    the one before, whose turns it ranks.
    """

    type: Literal["at2po"] = "at2po"
    initial: int = Field(default=10, ge=1)
    expansions: int = Field(default=6, ge=0)
    rounds: int = Field(default=2, ge=1)
    penalty: float = Field(default=0.05, ge=0.0)

    @property
    def trajectories(self) -> int:
        """Leaves of the task's tree."""
        return self.initial + self.expansions * self.rounds

    @property
    def needs_fork(self) -> bool:
        """New siblings start in the middle of an episode."""
        return self.trajectories > self.initial

    def score(self, turn: Turn, siblings: int) -> float:
        """How much `turn` asks to be sampled again; an action without tokens does not."""
        surprise = -float(turn.logprobs.mean(dtype=float)) if len(turn.logprobs) else 0.0
        return surprise - self.penalty * siblings

    def chosen(self, tree: TrajectoryTree, candidates: Sequence[int]) -> list[int]:
        """A round's turns: the best candidates by score, best first, repeated as needed."""
        children = Counter(tree.parents)
        best = sorted(
            candidates,
            key=lambda node: self.score(tree.turns[node], children[tree.parents[node]] - 1),
            reverse=True,
        )
        return [best[order % len(best)] for order in range(self.expansions)]

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """One tree."""
        episode = await start(task, seed)
        growth = Growth(episode, seed=seed)
        try:
            await self._chains(growth, episode)
            for number in range(self.rounds if self.needs_fork else 0):
                await growth.extend(
                    self._states(growth),
                    root=(0,),
                    first=number * self.expansions,
                    last=number + 1 == self.rounds,
                )
        finally:
            await growth.close()
        return [growth.ordered()]

    async def _chains(self, growth: Growth, episode: Episode) -> None:
        """The initial chains: the episode, and forks of it from the prompt."""
        if self.needs_fork and episode.stop_reason is None:
            await growth.park(episode)
        while len(growth.lines) < self.initial and episode.stop_reason is None:
            growth.lines.append(await episode.fork())
        await all_of(
            growth.line((index,), line, 0, parks=self.needs_fork)
            for index, line in enumerate(growth.lines)
        )

    def _states(self, growth: Growth) -> list[int]:
        """Where a round's lines start: the nodes from which the chosen turns acted."""
        tree = growth.tree
        candidates = [
            node
            for node in sorted(growth.names, key=growth.names.__getitem__)
            if node not in tree.leaves and tree.parents[node] in growth.parked
        ]
        if not candidates:
            return [ROOT] * self.expansions if ROOT in growth.parked else []
        return [tree.parents[node] for node in self.chosen(tree, candidates)]

"""Monte Carlo tree search over turns: each simulation samples one turn and plays it to the end."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import ROOT, Task, TrajectoryTree, Turn
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.samplers.growth import Growth


class Search(NamedTuple):
    """What a search knows of K nodes; the entry after them, at index `ROOT`, is the prompt's.

    `visits` N counts the trajectories through a node, `values` Q is their mean return (0 where N
    is 0). Trajectories that ended in a failure are in neither.
    """

    visits: list[float]
    values: list[float]

    @classmethod
    def of(cls, tree: TrajectoryTree) -> Search:
        """N and Q of `tree`: leaves below, and the mean of their returns from the prompt on."""
        count = len(tree.turns)
        earned, visits, total = ([0.0] * (count + 1) for _ in range(3))
        for node, parent in enumerate(tree.parents):
            earned[node] = earned[parent] + tree.turns[node].reward
        for leaf, reason in tree.leaves.items():
            if not reason.is_failure:
                visits[leaf], total[leaf] = 1.0, earned[leaf]
        for node in reversed(range(count)):
            visits[tree.parents[node]] += visits[node]
            total[tree.parents[node]] += total[node]
        return cls(visits, [w / n if n else 0.0 for w, n in zip(total, visits, strict=True)])


class MctsSampler(Settings):
    """`trees` searches, each of which plays `simulations` trajectories where returns were best.

    UCT over turns (arXiv:2405.00451 with its values replaced by returns). A simulation walks down
    from the prompt, always to the child with the largest

        uct:   Q(c) + exploration * sqrt(ln N(parent) / N(c)),   unvisited ones first
        puct:  Q(c) + exploration * p(c) * sqrt(N(parent)) / (1 + N(c))

    (ties: the oldest child) until it meets a node with fewer than `width` children. There it
    samples one more turn and plays it to the end; all turns of that play-out are nodes of the
    tree. p = exp(sum of the action's log-probabilities / length ** 1.25). N counts trajectories
    through a node, Q is their mean return, so both can be read off the finished tree: leaves
    below, and the mean of their returns.

    A branch in which no turn can be added is not walked into, so every simulation is a new
    trajectory, where textbook UCT visits the same end twice; and once the whole tree is full, the
    prompt takes more than `width` children. A failed simulation is spent, and is in no N and Q.

    The walk prefers what earned much, so the trajectories are not draws of the policy and their
    mean return is above its own. Each child of a node is such a draw, however often it was walked
    to: credit that values a turn by the mean of its children (`spo`) does not see the walk's
    preference.

    Differs from the paper and its code: the value of a turn is not the policy's opinion of itself
    but what trajectories through it earned; one turn at a time is added, and the prompt is not
    counted twice.

    Simulations of a tree wait for each other, since each is chosen by the ones before; trees and
    tasks do not. Forks are parked as by `tree`.
    """

    type: Literal["mcts"] = "mcts"
    trees: int = Field(default=1, ge=1)
    simulations: int = Field(default=8, ge=1)
    width: int = Field(default=3, ge=1)
    exploration: float = Field(default=1.0, ge=0.0)
    selection: Literal["uct", "puct"] = "uct"

    @property
    def trajectories(self) -> int:
        """One of each simulation."""
        return self.trees * self.simulations

    @property
    def needs_fork(self) -> bool:
        """All simulations but the first start from a node."""
        return self.simulations > 1

    def prior(self, turn: Turn) -> float:
        """The p of the class docstring, in (0, 1]."""
        length = max(len(turn.logprobs), 1)
        return math.exp(float(turn.logprobs.sum(dtype=float)) / length**1.25)

    def score(self, value: float, visits: float, parent_visits: float, prior: float) -> float:
        """What the child of the largest score is chosen by; `prior` is read by "puct" only."""
        if self.selection == "puct":
            return value + self.exploration * prior * math.sqrt(parent_visits) / (1.0 + visits)
        if visits == 0.0:
            return math.inf
        return value + self.exploration * math.sqrt(math.log(parent_visits) / visits)

    def chosen(self, tree: TrajectoryTree, inner: Collection[int]) -> int:
        """The node from which the next simulation samples a turn, one of `inner` or the root.

        `inner` are the nodes that can be continued.
        """
        search = Search.of(tree)
        children = _children(tree)
        room = {node for node in inner if len(children[node]) < self.width}
        opens = [False] * (len(tree.turns) + 1)  # a turn can be added here or below
        for node in reversed(range(ROOT, len(tree.turns))):
            opens[node] = node in room or any(opens[child] for child in children[node])
        node = ROOT
        while opens[node] and node not in room:
            scores = {
                child: self.score(
                    search.values[child],
                    search.visits[child],
                    search.visits[node],
                    self.prior(tree.turns[child]),
                )
                for child in children[node]
                if opens[child]
            }
            node = max(scores, key=scores.__getitem__)
        return node

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
            for number in range(1, self.simulations):
                if ROOT not in growth.parked:
                    break
                await growth.extend(
                    [self.chosen(growth.tree, growth.parked)],
                    root=(index,),
                    first=number,
                    last=number + 1 == self.simulations,
                )
        finally:
            await growth.close()
        return growth.ordered()


def _children(tree: TrajectoryTree) -> dict[int, list[int]]:
    """The children of each node, oldest first; those that only failed are none."""
    children: dict[int, list[int]] = {node: [] for node in range(ROOT, len(tree.turns))}
    for node, parent in enumerate(tree.parents):
        reason = tree.leaves.get(node)
        if reason is None or not reason.is_failure:
            children[parent].append(node)
    return children

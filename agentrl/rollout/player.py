"""What a sampler is given: live episodes that it can continue, fork and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, Self

from agentrl.core.types import StopReason, Task, TrajectoryTree
from agentrl.engine.base import Completion


class Episode(Protocol):
    """One live line of a tree: an environment after the turns of `node`'s path.

    `propose` samples the next action without playing it; `play` plays it, adds the turn to
    `tree` and returns the stop reason, or None when the episode goes on. Between the two the
    environment still stands at `node`, which is where `fork` branches.
    """

    @property
    def tree(self) -> TrajectoryTree:
        """The tree that this line grows."""
        ...

    @property
    def node(self) -> int:
        """The node reached so far, `ROOT` before the first turn."""
        ...

    async def propose(self, *, seed: int) -> Completion:
        """Sample the next action from this state."""
        ...

    async def play(self, completion: Completion) -> StopReason | None:
        """Play `completion`; ends the leaf in the tree when the episode is over."""
        ...

    async def fork(self) -> Self:
        """A second live line from `node`, in the same tree."""
        ...

    async def close(self) -> None:
        """Free the environment."""
        ...


StartEpisode = Callable[[Task, int], Awaitable[Episode]]
"""(task, seed) -> a new tree with a live episode at its root."""


class Sampler(Protocol):
    """Turns a task into trees; all randomness comes from `seed`, whatever finishes first."""

    @property
    def trajectories(self) -> int:
        """Trajectories per task: the budget, reached and never passed."""
        ...

    @property
    def needs_fork(self) -> bool:
        """True where it branches in the middle of an episode."""
        ...

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """Play `task` until the budget of trajectories is reached."""
        ...

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

    Where actions are sampled in segments (`rollout.sampling.segment_tokens`) a proposal is a
    segment. The environment acts once the action is complete; until then it stands where the turn
    began, and a fork has the beginning of the action.
    """

    @property
    def tree(self) -> TrajectoryTree:
        """The tree that this line grows."""
        ...

    @property
    def node(self) -> int:
        """The node reached so far, `ROOT` before the first turn."""
        ...

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the line ended; None while it is alive."""
        ...

    @property
    def added(self) -> Sequence[int]:
        """The nodes that this line itself added to the tree, in order."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens the policy chooses from: bounds an entropy by its logarithm."""
        ...

    async def propose(self, *, seed: int, whole: bool = False) -> Completion | None:
        """Sample the next action from this state; None when the line has ended.

        `whole` asks for all that is left of an action where it would be sampled in segments.
        """
        ...

    async def play(self, completion: Completion) -> StopReason | None:
        """Play `completion`; ends the leaf in the tree when the episode is over."""
        ...

    def follow(self, node: int) -> None:
        """Go on after `node`, a segment of the next action that another line sampled."""
        ...

    async def fork(self) -> Self:
        """A second live line from `node`, in the same tree.

        Never raises for an environment that cannot be copied: the new line has then ended. It is
        the caller's to close as soon as it is returned. Where the call is cancelled, whatever was
        copied meanwhile stays this line's, whose `close` ends it.
        """
        ...

    async def close(self) -> None:
        """Free the environment; over when that is done, or given up at its deadline."""
        ...


StartEpisode = Callable[[Task, int], Awaitable[Episode]]
"""(task, seed) -> a new tree with a live episode at its root, the caller's to close."""


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

"""The ladder of hints: groups that failed are sampled again with more and more of the solution."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from agentrl.core.hints import hinted
from agentrl.core.types import Group
from agentrl.trainer.replay import failed, succeeded
from agentrl.workers.fleet import Job

Play = Callable[[Sequence[Job]], Awaitable[list[Group]]]


class Climbed(NamedTuple):
    """Groups of which some were sampled with a hint, and how it went.

    `assisted` are all that were, `failed` counts the groups that failed without one, and `shares`
    has the share of the solution with which each of those that succeeded did.
    """

    groups: list[Group]
    assisted: list[Group]
    failed: int
    shares: list[float]


async def climb(
    groups: Sequence[Group], jobs: Sequence[Job], shares: Sequence[float], *, score: str, play: Play
) -> Climbed:
    """Sample each group that failed again, with each of `shares` in turn, until one succeeds.

    The first group with a success takes the failed one's place: it was sampled with the hint in
    its prompt, and so it is trained (GHPO, arXiv:2507.10628). A group that fails with every hint
    stays as it was. `jobs` are those of `groups`; a hint changes neither their seed nor, so, the
    instance of the task.
    """
    found = list(groups)
    assisted: list[Group] = []
    helped: list[float] = []
    left = [index for index, group in enumerate(groups) if failed(group, score)]
    asked = len(left)
    for share in shares:
        if not left:
            break
        again = await play([_with_hint(jobs[index], share) for index in left])
        assisted += again
        for index, group in zip(list(left), again, strict=True):
            if succeeded(group, score):
                found[index] = group
                left.remove(index)
                helped.append(share)
    return Climbed(found, assisted, asked, helped)


def _with_hint(job: Job, share: float) -> Job:
    return replace(
        job, task=hinted(job.task, share), group_id=f"{job.group_id}-hint-{round(100 * share)}"
    )

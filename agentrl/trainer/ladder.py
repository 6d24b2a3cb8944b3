"""The ladder of hints: a group that failed is sampled again with more and more of the solution."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from agentrl.core.hints import hinted
from agentrl.core.types import Group
from agentrl.trainer.replay import failed, succeeded
from agentrl.trainer.sampled import Attempt
from agentrl.workers.fleet import Job


async def climb(
    job: Job, shares: Sequence[float], *, score: str, play: Callable[[Job], Awaitable[Group]]
) -> Attempt:
    """Play `job`; if its group fails, with each of `shares` in turn until one succeeds.

    That one may train: it was sampled with the hint in its prompt, and so it is trained (GHPO,
    arXiv:2507.10628). Where every one fails the group without a hint stays, in which nothing can
    be told apart. A hint changes neither the job's seed nor, so, the instance of the task. A group
    that was lost to infrastructure has not failed.
    """
    groups = [await play(job)]
    if failed(groups[0], score):
        for share in shares:
            groups.append(await play(_with_hint(job, share)))
            if succeeded(groups[-1], score):
                return Attempt(tuple(groups), len(groups) - 1)
    return Attempt(tuple(groups))


def _with_hint(job: Job, share: float) -> Job:
    name = f"{job.group_id}-hint-{round(100 * share)}"
    return replace(job, task=hinted(job.task, share), group_id=name)

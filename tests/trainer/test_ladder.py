"""The ladder of hints: who climbs it, how far, and what takes the failed group's place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentrl.core.types import ROOT, Group, StopReason, Task
from agentrl.testing.trees import tree_of
from agentrl.trainer.ladder import climb
from agentrl.trainer.sampled import cost
from agentrl.workers.fleet import Job

SHARES = (0.25, 0.5, 0.75)
JOB = Job(task=Task("t", {"word": "w"}), group_id="g", seed=9)


def played(name: str, returns: Sequence[float], *, lost: int = 0) -> Group:
    trees = [tree_of([ROOT], {0: value}) for value in returns]
    trees += [tree_of([ROOT], {}, stops={0: StopReason.ENV_ERROR}) for _ in range(lost)]
    return Group(name, "t", tuple(trees))


class Fake:
    """Plays groups of two, one right from the share `helps` on; `lost` from share `lost` on."""

    def __init__(self, helps: float, *, lost: float = 2.0) -> None:
        self.helps, self.lost = helps, lost
        self.asked: list[Job] = []

    async def __call__(self, job: Job) -> Group:
        self.asked.append(job)
        share = job.task.data.get("agentrl.hint", 0.0)
        if share >= self.lost:
            return played(job.group_id, [], lost=2)
        return played(job.group_id, [0.0, float(share >= self.helps)])


@pytest.mark.parametrize(
    ("helps", "rungs", "chosen"),
    [(0.0, 1, 0), (0.2, 2, 1), (0.25, 2, 1), (0.5, 3, 2), (0.7, 4, 3), (0.9, 4, 0)],
)
async def test_a_group_that_failed_climbs_until_it_succeeds(helps, rungs, chosen) -> None:
    play = Fake(helps)
    found = await climb(JOB, SHARES, score="reward", play=play)
    shares = [one.task.data.get("agentrl.hint") for one in play.asked]
    assert shares == [None, 0.25, 0.5, 0.75][:rungs]
    assert [one.group_id for one in play.asked] == [
        "g",
        "g-hint-25",
        "g-hint-50",
        "g-hint-75",
    ][:rungs]
    # One instance of one task, whatever the hint.
    assert {(one.seed, one.task.id) for one in play.asked} == {(9, "t")}
    assert (len(found.groups), found.chosen) == (rungs, chosen)
    assert found.first.id == "g" and found.group is found.groups[chosen]
    assert cost([found]).trajectories == 2 * rungs


async def test_groups_that_were_lost_are_not_sampled_again_and_take_no_place() -> None:
    play = Fake(0.0, lost=0.0)
    assert (await climb(JOB, SHARES, score="reward", play=play)).chosen == 0
    assert len(play.asked) == 1
    play = Fake(0.5, lost=0.25)
    assert (await climb(JOB, SHARES, score="reward", play=play)).chosen == 0
    assert len(play.asked) == 4


async def test_without_rungs_a_task_is_played_once() -> None:
    play = Fake(0.5)
    assert len((await climb(JOB, (), score="reward", play=play)).groups) == 1

"""The ladder of hints: who climbs it, how far, and what takes the failed group's place."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.types import ROOT, Group, StopReason, Task
from agentrl.testing.trees import tree_of
from agentrl.trainer.ladder import climb
from agentrl.workers.fleet import Job

SHARES = (0.25, 0.5, 0.75)


def job(name: str) -> Job:
    return Job(task=Task(name, {"word": name}), group_id=f"g-{name}", seed=hash(name) % 1000)


def played(name: str, returns: Sequence[float], *, lost: int = 0) -> Group:
    trees = [tree_of([ROOT], {0: value}) for value in returns]
    trees += [tree_of([ROOT], {}, stops={0: StopReason.ENV_ERROR}) for _ in range(lost)]
    return Group(name, name, tuple(trees))


async def climbed(groups: list[Group], helps: dict[str, float], *, shares=SHARES, lost=()):
    """`helps`: the share from which on a task succeeds; `lost` are only ever lost."""
    asked: list[list[Job]] = []

    async def play(jobs: Sequence[Job]) -> list[Group]:
        asked.append(list(jobs))
        found = []
        for one in jobs:
            name, share = one.task.id, one.task.data["agentrl.hint"]
            if name in lost:
                found.append(played(name, [], lost=2))
            else:
                found.append(played(name, [0.0, float(share >= helps[name])]))
        return found

    jobs = [job(group.task_id) for group in groups]
    return await climb(groups, jobs, shares, score="reward", play=play), asked, jobs


async def test_each_group_that_failed_climbs_until_it_succeeds() -> None:
    groups = [played(name, [0.0, 0.0]) for name in "abc"]
    groups.insert(1, played("right", [0.0, 1.0]))
    found, asked, jobs = await climbed(groups, {"a": 0.25, "b": 0.75, "c": 1.0})
    assert [[one.task.id for one in rung] for rung in asked] == [
        ["a", "b", "c"],
        ["b", "c"],
        ["b", "c"],
    ]
    assert [[one.task.data["agentrl.hint"] for one in rung] for rung in asked] == [
        [0.25] * 3,
        [0.5] * 2,
        [0.75] * 2,
    ]
    # What failed with every hint is trained as it was without any: it says nothing.
    assert found.groups[1] is groups[1] and found.groups[3] is groups[3]
    assert [g.trajectories()[1].episode_return for g in found.groups] == [1.0, 1.0, 1.0, 0.0]
    assert (len(found.assisted), found.failed, found.shares) == (7, 3, [0.25, 0.75])
    again = asked[0][0]
    assert (again.seed, again.group_id) == (jobs[0].seed, "g-a-hint-25")


async def test_groups_that_were_lost_are_not_sampled_again() -> None:
    groups = [played("a", [], lost=2), played("b", [1.0, 1.0])]
    found, asked, _ = await climbed(groups, {})
    assert asked == [] and found.groups == groups and found.failed == 0


async def test_a_hinted_group_that_is_lost_takes_no_place() -> None:
    groups = [played("a", [0.0])]
    found, asked, _ = await climbed(groups, {}, lost=("a",))
    assert len(asked) == 3 and found.groups == groups and found.shares == []


async def test_without_rungs_nothing_is_played() -> None:
    groups = [played("a", [0.0])]
    found, asked, _ = await climbed(groups, {}, shares=())
    assert asked == [] and found.groups == groups

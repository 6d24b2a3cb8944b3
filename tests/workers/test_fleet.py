"""Losing a rollout worker or an engine costs its episodes and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import numpy as np
import pytest

from agentrl.core.errors import EngineError
from agentrl.core.types import (
    Failure,
    Float32,
    Group,
    Int32,
    StopReason,
    Task,
    TrajectoryTree,
    Turn,
)
from agentrl.workers.fleet import Fleet, Job, MemberLostError


class FakeMember:
    """Plays at once; dies or loses its engine at the jobs that it is told to."""

    def __init__(self, log: list[str], name: str, dies_at: set[str], breaks_at: set[str]) -> None:
        self.log, self.name, self.dies_at, self.breaks_at = log, name, dies_at, breaks_at
        self.loaded: list[int] = []

    async def start(self) -> None:
        self.log.append(f"start {self.name}")

    async def play(self, job: Job) -> Group:
        await asyncio.sleep(0)
        if f"start {self.name}" not in self.log:
            raise MemberLostError("never started")
        if job.task.id in self.dies_at:
            self.dies_at.discard(job.task.id)
            raise MemberLostError("killed")
        tree = TrajectoryTree(job.task.id, [1], group_id=job.group_id)
        if job.task.id in self.breaks_at:
            self.breaks_at.discard(job.task.id)
            tree.failures.append(Failure(-1, StopReason.ENGINE_ERROR, "engine is dead"))
        else:
            one = np.zeros(1, np.float32)
            node = tree.add(-1, Turn(action_ids=np.ones(1, np.int32), logprobs=one, entropies=one))
            tree.end(node, StopReason.TERMINATED)
        return Group(job.group_id, job.task.id, (tree,))

    async def load(self, weights: Path, version: int) -> None:
        self.loaded.append(version)

    async def score(self, token_ids: Int32) -> Float32:
        return np.zeros(len(token_ids) - 1, np.float32)

    async def restart_engine(self) -> None:
        self.log.append(f"restart {self.name}")

    async def close(self) -> None:
        self.log.append(f"close {self.name}")


def fleet_of(
    size: int,
    *,
    dies_at: set[str],
    breaks_at: set[str],
    written: Callable[[], None] = lambda: None,
) -> tuple[Fleet, list[FakeMember], list[str]]:
    log: list[str] = []
    made: list[FakeMember] = []

    def make(index: int) -> FakeMember:
        made.append(FakeMember(log, f"{index}.{len(made)}", dies_at, breaks_at))
        return made[-1]

    return Fleet(make, size=size, jobs_at_once=2, trajectories=8, written=written), made, log


def jobs(n: int) -> list[Job]:
    return [Job(task=Task(str(i)), group_id=f"g{i}", seed=i) for i in range(n)]


async def test_groups_come_back_in_the_order_of_the_jobs() -> None:
    fleet, _, _ = fleet_of(2, dies_at=set(), breaks_at=set())
    await fleet.start()
    groups = await fleet.play(jobs(9))
    assert [group.id for group in groups] == [f"g{i}" for i in range(9)]


async def test_a_lost_member_is_replaced_with_the_current_weights_and_its_job_played_again() -> (
    None
):
    fleet, made, log = fleet_of(1, dies_at={"3"}, breaks_at=set())
    await fleet.start()
    await fleet.load(Path("w"), 7)
    groups = await fleet.play(jobs(6))
    assert all(len(list(g.trees[0].trajectories())) == 1 for g in groups)
    assert len(made) == 2
    assert made[1].loaded == [7]
    assert (fleet.report.members_lost, fleet.report.episodes_lost) == (1, 8)
    assert log.count("start 0.1") == 1


async def test_two_jobs_lost_with_one_member_replace_it_once() -> None:
    fleet, made, _ = fleet_of(1, dies_at={"0", "1"}, breaks_at=set())
    await fleet.start()
    await fleet.play(jobs(2))
    assert len(made) == 2
    assert (fleet.report.members_lost, fleet.report.episodes_lost) == (1, 16)


async def test_a_dead_engine_is_restarted_and_its_job_played_again() -> None:
    fleet, made, log = fleet_of(1, dies_at=set(), breaks_at={"2"})
    await fleet.start()
    await fleet.load(Path("w"), 1)
    groups = await fleet.play(jobs(4))
    assert all(not t.stop_reason.is_failure for g in groups for t in g.trajectories())
    assert log.count("restart 0.0") == 1
    assert made[0].loaded == [1, 1]
    assert (fleet.report.engines_restarted, fleet.report.episodes_lost) == (1, 8)


async def test_a_job_that_kills_every_worker_stops_the_run_and_names_its_task() -> None:
    class Deadly(set[str]):
        def discard(self, element: str) -> None:
            """Dies again and again."""

    fleet, _, _ = fleet_of(1, dies_at=Deadly({"1"}), breaks_at=set())
    await fleet.start()
    with pytest.raises(EngineError, match="task '1' was lost 3 times"):
        await fleet.play(jobs(2))


async def test_members_lost_between_jobs_are_found_by_the_sync_and_replaced() -> None:
    fleet, made, log = fleet_of(2, dies_at=set(), breaks_at=set())
    await fleet.start()
    await fleet.load(Path("w"), 3)

    async def lost(token_ids: Int32) -> Float32:
        raise MemberLostError("killed")

    async def broken(token_ids: Int32) -> Float32:
        made[1].score = FakeMember.score.__get__(made[1])  # type: ignore[method-assign]
        raise EngineError("dead")

    made[0].score, made[1].score = lost, broken  # type: ignore[method-assign]
    scores = await fleet.score(np.arange(5, dtype=np.int32))
    assert [len(each) for each in scores] == [4, 4]
    assert (fleet.report.members_lost, fleet.report.engines_restarted) == (1, 1)
    assert made[2].loaded == [3] and made[1].loaded == [3, 3]
    assert "restart 1.1" in log


async def test_a_replacement_that_dies_at_its_start_is_replaced_as_well() -> None:
    fleet, made, _ = fleet_of(1, dies_at={"1"}, breaks_at=set())
    await fleet.start()
    start = FakeMember.start

    async def dies_once(self: FakeMember) -> None:
        if len(made) == 2:
            raise MemberLostError("killed")
        await start(self)

    FakeMember.start = dies_once  # type: ignore[method-assign]
    try:
        groups = await fleet.play(jobs(3))
    finally:
        FakeMember.start = start  # type: ignore[method-assign]
    assert len(groups) == 3 and len(made) == 3
    assert fleet.report.members_lost == 2


async def test_a_group_that_an_engine_left_half_played_is_played_again_if_the_engine_is_dead() -> (
    None
):
    for dead in (True, False):
        fleet, made, _ = fleet_of(1, dies_at=set(), breaks_at=set())
        await fleet.start()
        await fleet.score(np.arange(5, dtype=np.int32))
        member, whole, alive = made[0], made[0].play, made[0].score

        async def half(job: Job, member=member, whole=whole, dead=dead) -> Group:  # type: ignore[no-untyped-def]
            group = await whole(job)
            group.trees[0].failures.append(Failure(-1, StopReason.ENGINE_ERROR, "refused"))
            member.play = whole
            if dead:
                member.score = broken
            return group

        async def broken(token_ids: Int32, member=member, alive=alive) -> Float32:  # type: ignore[no-untyped-def]
            member.score = alive
            raise EngineError("dead")

        member.play = half  # type: ignore[method-assign]
        (group,) = await fleet.play(jobs(1))
        assert bool(group.trees[0].failures) is not dead
        assert (fleet.report.engines_restarted, fleet.report.episodes_lost) == (dead, 8 * dead)


async def test_a_job_waits_for_a_replacement_that_is_still_starting() -> None:
    fleet, made, _ = fleet_of(1, dies_at={"0"}, breaks_at=set())
    await fleet.start()
    await fleet.load(Path("w"), 1)
    start = FakeMember.start

    async def slow(self: FakeMember) -> None:
        await asyncio.sleep(0.02)
        await start(self)

    FakeMember.start = slow  # type: ignore[method-assign]
    try:
        first = asyncio.create_task(fleet.play(jobs(1)))
        await asyncio.sleep(0.01)
        assert len(made) == 2 and not made[1].loaded
        (group,) = await fleet.play(jobs(2)[1:])
        await first
    finally:
        FakeMember.start = start  # type: ignore[method-assign]
    assert group.task_id == "1" and made[1].loaded == [1]
    assert (fleet.report.members_lost, fleet.report.episodes_lost) == (1, 8)


async def test_a_group_that_ends_while_its_engine_is_restarted_is_played_again() -> None:
    fleet, made, _ = fleet_of(1, dies_at=set(), breaks_at={"0"})
    await fleet.start()
    await fleet.score(np.arange(5, dtype=np.int32))
    member, whole, restarting = made[0], made[0].play, asyncio.Event()

    async def half(job: Job) -> Group:
        group = await whole(job)
        if job.task.id == "1" and fleet.report.episodes_lost < 16:
            await restarting.wait()
            group.trees[0].failures.append(Failure(-1, StopReason.ENGINE_ERROR, "closed"))
        return group

    async def slow() -> None:
        restarting.set()
        await asyncio.sleep(0.02)

    member.play, member.restart_engine = half, slow  # type: ignore[method-assign]
    groups = await fleet.play(jobs(2))
    assert not any(group.trees[0].failures for group in groups)
    assert (fleet.report.engines_restarted, fleet.report.episodes_lost) == (1, 16)


async def test_a_server_elsewhere_that_failed_is_left_as_it_is() -> None:
    log: list[str] = []

    def make(index: int) -> FakeMember:
        return FakeMember(log, str(index), set(), {"0"})

    fleet = Fleet(make, size=1, jobs_at_once=1, trajectories=1, restarts_engines=False)
    await fleet.start()
    lost, played = [await fleet.play_one(job) for job in jobs(2)]
    assert not lost.trajectories() and lost.trees[0].failures[0].message == "engine is dead"
    assert len(played.trajectories()) == 1
    assert log == ["start 0"] and fleet.report.engines_restarted == 0


async def test_an_engine_that_does_not_take_new_weights_in_time_is_replaced() -> None:
    log: list[str] = []
    made: list[FakeMember] = []

    def make(index: int) -> FakeMember:
        made.append(FakeMember(log, str(index), set(), set()))
        return made[-1]

    fleet = Fleet(make, size=2, jobs_at_once=1, trajectories=1, push_seconds=0.05)
    await fleet.start()
    load = made[0].load

    async def hangs(weights: Path, version: int) -> None:
        made[0].load = load  # type: ignore[method-assign]
        await asyncio.sleep(3600)

    made[0].load = hangs  # type: ignore[method-assign]
    await asyncio.wait_for(fleet.load(Path("w"), 4), 10)
    assert "restart 0" in log and fleet.report.engines_restarted == 1
    assert made[0].loaded == [4, 4] and made[1].loaded == [4]


async def test_a_replacement_never_reads_the_file_while_it_is_written() -> None:
    fleet, made, _ = fleet_of(1, dies_at={"0"}, breaks_at=set())
    await fleet.start()
    await fleet.load(Path("w"), 1)
    writing, written = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        writing.set()
        await asyncio.sleep(0.03)
        assert len(made) == 2 and not made[1].loaded
        written.set()

    push = asyncio.create_task(fleet.load(Path("w"), 2, write=write))
    await writing.wait()
    await fleet.play(jobs(1))
    assert written.is_set()
    await push
    assert set(made[1].loaded) == {2}


async def test_every_new_file_is_told_of_before_a_member_reads_it() -> None:
    """Also where its version is that of the last one, as under EEPO."""
    told: list[str] = []
    fleet, made, _ = fleet_of(1, dies_at={"0"}, breaks_at=set(), written=lambda: told.append("new"))

    async def write() -> None:
        told.append("written")

    await fleet.start()
    made[0].load = _telling(told)  # type: ignore[method-assign]
    for _ in range(2):
        await fleet.load(Path("w"), 1, write=write)
    assert told == ["written", "new", "read 1"] * 2
    await fleet.play(jobs(1))  # a member that is replaced reads the file that there is
    assert made[1].loaded == [1] and told.count("new") == 2


def _telling(told: list[str]) -> Callable[[Path, int], Coroutine[object, object, None]]:
    async def load(weights: Path, version: int) -> None:
        told.append(f"read {version}")

    return load

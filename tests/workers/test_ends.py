"""Whatever fails while workers start or end, the others are ended too."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, ObjectLostError

from agentrl.core.errors import EngineError, LearnerError
from agentrl.workers import ray_members
from agentrl.workers.fleet import Fleet, Job, MemberLostError
from agentrl.workers.ray_members import RayMember
from agentrl.workers.runtime import Runtime


class Member:
    """Starts, answers and closes as it is told to."""

    def __init__(self, log: list[str], index: int) -> None:
        self.log, self.index = log, index

    async def start(self) -> None:
        if self.index == 1:
            raise EngineError("no GPU")
        try:
            await asyncio.sleep(0.01)
            self.log.append(f"started {self.index}")
        except asyncio.CancelledError:
            self.log.append(f"given up {self.index}")
            raise

    async def score(self, token_ids: Any) -> Any:
        if self.index == 1:
            raise LearnerError("its node is gone")
        await asyncio.sleep(0.01)
        self.log.append(f"scored {self.index}")

    async def close(self) -> None:
        if self.index == 1:
            raise OSError("no such process")
        await asyncio.sleep(0.01)
        self.log.append(f"closed {self.index}")


def fleet(log: list[str]) -> Fleet:
    return Fleet(
        lambda index: Member(log, index),  # type: ignore[arg-type, return-value]
        size=3,
        jobs_at_once=1,
        trajectories=1,
    )


async def test_members_that_start_beside_one_that_cannot_have_stopped_when_it_is_told() -> None:
    log: list[str] = []
    with pytest.raises(EngineError, match="no GPU"):
        await fleet(log).start()
    assert log == ["given up 0", "given up 2"]


async def test_an_error_of_one_member_is_told_when_all_have_answered() -> None:
    log: list[str] = []
    with pytest.raises(LearnerError, match="its node is gone"):
        await fleet(log).score([1])  # type: ignore[arg-type]
    assert log == ["scored 0", "scored 2"]


async def test_members_are_closed_beside_one_that_cannot_be(caplog) -> None:
    log: list[str] = []
    with caplog.at_level(logging.WARNING):
        await fleet(log).close()
    assert log == ["closed 0", "closed 2"]
    assert "rollout worker 1 did not close: OSError('no such process')" in caplog.text


async def test_a_runtime_ends_everything_whatever_fails() -> None:
    log: list[str] = []

    def fails() -> None:
        log.append("learner")
        raise LearnerError("it was gone")

    runtime = Runtime(
        fleet=fleet(log),
        renderer=SimpleNamespace(),  # type: ignore[arg-type]
        model="",
        optional_learner=SimpleNamespace(close=fails),  # type: ignore[arg-type]
        open_learner=lambda: None,
        cluster=SimpleNamespace(close=lambda: log.append("cluster")),  # type: ignore[arg-type]
    )
    with pytest.raises(LearnerError):
        await runtime.close()
    assert log == ["closed 0", "closed 2", "learner", "cluster"]


def ray_member(answer: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[RayMember, list[object]]:
    """A member whose actor's every method does `answer()`, and the actors that were killed."""
    killed: list[object] = []
    method = SimpleNamespace(remote=lambda *arguments: answer())
    member = object.__new__(RayMember)
    member.actor = SimpleNamespace(play=method, close=method)
    monkeypatch.setattr(ray, "kill", killed.append)
    return member, killed


@pytest.mark.parametrize(
    "error",
    [
        ActorUnavailableError("the connection broke", b"1" * 16),
        ObjectLostError("0" * 56, None, ""),
    ],
)
async def test_a_member_that_counts_as_lost_is_ended(error, monkeypatch) -> None:
    """Otherwise one that was only out of reach would keep its GPU beside the one in its place."""

    async def fail() -> None:
        raise error

    member, killed = ray_member(fail, monkeypatch)
    with pytest.raises(MemberLostError):
        await member.play(Job(task=None, group_id="g", seed=0))  # type: ignore[arg-type]
    assert killed == [member.actor]


async def test_a_host_that_hangs_while_it_closes_is_ended(monkeypatch, caplog) -> None:
    monkeypatch.setattr(ray_members, "_CLOSE_SECONDS", 0.01)
    member, killed = ray_member(lambda: asyncio.sleep(3600), monkeypatch)
    await member.close()
    assert killed == [member.actor]
    assert "did not close within 0.01 s" in caplog.text

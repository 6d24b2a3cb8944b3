"""Who closes an environment, and when the slot of its episode is another's."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rollout_fakes import CountEnv, RuleEngine, stage

from agentrl.core.errors import ContractError
from agentrl.core.types import StopReason, Task
from agentrl.rollout.closing import Closing
from agentrl.rollout.episode import LiveEpisode
from agentrl.samplers import (
    ArpoReleasedSampler,
    ArpoSampler,
    At2poSampler,
    ChainSampler,
    MctsSampler,
    SpoSampler,
    TreeRlSampler,
    TreeSampler,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "samplers"))
from sampler_fakes import by_turn, sample, starter


def stops(prompt: str, seed: int) -> tuple[str, float]:
    return "stop", 1.0


def watched(
    made: list[CountEnv], *, on_close: Callable[[CountEnv], object] | None = None
) -> type[CountEnv]:
    """Environments that note themselves and their copies in `made`; copying takes some ticks."""

    class Watched(CountEnv):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        async def fork(self) -> CountEnv:
            for _ in range(3):
                await asyncio.sleep(0)
            twin = await super().fork()
            twin.closed = 0
            made.append(twin)
            return twin

        async def close(self) -> None:
            if on_close is not None:
                await on_close(self)
            await super().close()

    return Watched


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_slot_is_freed_when_its_environment_is_closed_and_not_before(slots: int) -> None:
    made: list[CountEnv] = []
    most = 0

    async def slowly(env: CountEnv) -> None:
        nonlocal most
        most = max(most, sum(not one.closed for one in made))
        await asyncio.sleep(0.002)
        most = max(most, sum(not one.closed for one in made))

    made_by = watched(made, on_close=slowly)
    await sample(ChainSampler(trajectories=8), RuleEngine(stops), made_by, slots=slots)
    assert len(made) == 8 and most == slots


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_slot_is_freed_too_where_the_environment_cannot_be_closed(hangs, caplog) -> None:
    async def fail(env: CountEnv) -> None:
        if hangs:
            await asyncio.sleep(3600)
        raise OSError("no such process")

    made: list[CountEnv] = []
    made_by = watched(made, on_close=fail)
    with caplog.at_level(logging.WARNING):
        trees = await sample(
            ChainSampler(trajectories=3), RuleEngine(stops), made_by, slots=1, close_seconds=0.01
        )
    assert [list(tree.leaves.values()) for tree in trees] == [[StopReason.TERMINATED]] * 3
    told = "did not close within 0.01 s" if hangs else "did not close: OSError('no such process')"
    assert [record.getMessage() for record in caplog.records] == [f"Watched {told}"] * 3


@pytest.mark.parametrize(
    "sampler",
    [
        SpoSampler(widths=(2, 2)),
        ArpoSampler(trajectories=4, initial=1, alpha=1.0),
        TreeSampler(trees=2, expansions=2),
    ],
)
async def test_forks_get_the_one_slot_once_their_parent_has_closed(sampler) -> None:
    """A parent that cannot close until its forks have closed is given up at its deadline."""
    made: list[CountEnv] = []

    async def last(env: CountEnv) -> None:
        while env is made[0] and not all(one.closed for one in made[1:]):
            await asyncio.sleep(0.001)

    engine = RuleEngine(by_turn([1.0, 2.0, 3.0]))
    made_by = watched(made, on_close=last)
    trees = await asyncio.wait_for(
        sample(sampler, engine, made_by, slots=1, close_seconds=0.05), 30.0
    )
    assert sum(len(tree.leaves) for tree in trees) == sampler.trajectories


async def test_who_closes_a_line_a_second_time_waits_for_its_environment_as_well() -> None:
    made: list[CountEnv] = []
    setting = stage(
        RuleEngine(stops), watched(made, on_close=lambda env: asyncio.sleep(0.01)), slots=1
    )
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    first = asyncio.ensure_future(episode.close())
    await asyncio.sleep(0)
    await episode.close()
    assert made[0].closed == 1 and not setting.slots.locked()
    await first


@pytest.mark.parametrize(
    "sampler",
    [
        TreeSampler(trees=2, expansions=2, rounds=2),
        At2poSampler(initial=2, expansions=2, rounds=1),
        SpoSampler(widths=(2, 2)),
        ArpoSampler(trajectories=4, initial=2),
        ArpoReleasedSampler(trajectories=4, initial=1, branch_probability=1.0),
        MctsSampler(simulations=3),
        TreeRlSampler(trees=1, expansions=2, rounds=2),
    ],
    ids=lambda sampler: sampler.type,
)
async def test_whatever_tick_a_sampler_is_cancelled_in_no_environment_stays_open(sampler) -> None:
    """That in which a copy is finished included: nobody has it yet."""
    copies, ticks = 0, 0
    while True:
        made: list[CountEnv] = []
        setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), watched(made))
        sampling = asyncio.ensure_future(sampler.sample(Task("t"), starter(setting), seed=0))
        for _ in range(ticks):
            await asyncio.sleep(0)
        if sampling.done():
            break
        sampling.cancel()
        await asyncio.wait([sampling])
        assert [env.closed for env in made] == [1] * len(made), f"after {ticks} ticks"
        assert not setting.live and not setting.slots.locked()
        copies, ticks = max(copies, len(made)), ticks + 1
    assert copies > 3 and ticks > 30


async def test_a_copy_that_comes_after_its_deadline_is_closed() -> None:
    made: list[CountEnv] = []

    class Stubborn(watched(made)):  # type: ignore[misc]
        async def fork(self) -> CountEnv:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return await super().fork()
            raise AssertionError

    setting = stage(RuleEngine(stops), Stubborn, reset_seconds=0.01)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    twin = await episode.fork()
    assert twin.stop_reason is StopReason.ENV_ERROR
    await twin.close()
    await episode.close()
    for _ in range(20):
        await asyncio.sleep(0)
    assert [env.closed for env in made] == [1, 1]


async def test_a_start_that_fails_in_a_way_of_ours_leaves_nothing_open() -> None:
    made: list[CountEnv] = []
    setting = stage(RuleEngine(stops), watched(made), slots=1)

    def fail(stop: object) -> None:
        raise ContractError("no such stop")

    setting.renderer.stop_for = fail  # type: ignore[assignment, method-assign]
    with pytest.raises(ContractError, match="no such stop"):
        await LiveEpisode.start(setting, Task("t"), seed=0)
    assert made[0].closed == 1 and not setting.slots.locked() and not setting.live


async def test_closing_goes_on_when_it_is_cancelled_and_is_given_up_at_its_deadline() -> None:
    closed: list[float] = []

    class Late(CountEnv):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        async def close(self) -> None:
            await asyncio.sleep(self.seconds)
            closed.append(self.seconds)

    closing = Closing(0.05)
    for seconds in (0.0, 0.02, 3600.0):
        closing.begin(Late(seconds))
    waiting = asyncio.ensure_future(closing.ended())
    await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 60.0)
    assert closed == [0.0, 0.02]
    await closing.ended()

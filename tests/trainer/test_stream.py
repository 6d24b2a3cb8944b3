"""No token is older than the lag allows, whatever takes how long, and no group is lost."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import Group, StopReason, TrajectoryTree, Turn
from agentrl.trainer.lag import lag_metrics
from agentrl.trainer.sampled import Sampled
from agentrl.trainer.stream import Played, Stream, StreamState, choose
from agentrl.trainer.summary import Budget


def group_of(number: int, *versions: int) -> Group:
    """A chain with a turn of one token for each of `versions`."""
    tree = TrajectoryTree(f"task {number}", [1])
    node, one = -1, np.zeros(1, np.float32)
    for version in versions:
        turn = Turn(
            action_ids=np.ones(1, np.int32), logprobs=one, entropies=one, policy_version=version
        )
        node = tree.add(node, turn)
    tree.end(node, StopReason.TERMINATED)
    return Group(str(number), tree.task_id, (tree,))


class Fake:
    """Groups that take as many ticks as chance says; every tick samples by the newest version."""

    def __init__(self, *, portion: int, max_lag: int, capacity: int, iterations: int, seed: int):
        self.rng = random.Random(seed)
        self.slow = self.rng.choice([0.0, 0.1, 0.5])
        self.version = 0
        self.live = self.most_live = 0
        self.played: list[int] = []
        self.max_lag, self.iterations = max_lag, iterations
        self.stream = Stream(
            self.play,
            portion=portion,
            max_lag=max_lag,
            capacity=capacity,
            begins=lambda index: index < iterations,
        )

    async def play(self, number: int) -> Group:
        self.played.append(number)
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        versions = []
        for _ in range(self.rng.randint(20, 60) if self.rng.random() < self.slow else 2):
            await asyncio.sleep(0)
            versions.append(self.version)
        self.live -= 1
        return group_of(number, *versions)

    async def train(self, *, until: int | None = None, start: int = 0) -> list[list[int]]:
        """Numbers trained by each iteration; lags are checked as the loop checks them."""
        trained = []
        self.version = start
        self.stream.advance(start)
        for iteration in range(start, self.iterations if until is None else until):
            assert self.stream.has_more
            portion = await self.stream.take()
            lag_metrics(portion.groups, version=iteration, max_lag=self.max_lag)
            trained.append([int(group.id) for group in portion.groups])
            for _ in range(self.rng.randint(0, 15)):  # the update
                await asyncio.sleep(0)
            self.version = iteration + 1  # engines take it one after the other
            for _ in range(self.rng.randint(0, 3)):
                await asyncio.sleep(0)
            self.stream.advance(iteration + 1)
        return trained


SIZES = {
    "portion": st.integers(1, 4),
    "max_lag": st.integers(0, 3),
    "capacity": st.integers(1, 9),
    "seed": st.integers(0, 10_000),
}


@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_every_group_is_trained_once_and_none_is_older_than_the_bound(
    portion: int, max_lag: int, capacity: int, seed: int
) -> None:
    fake = Fake(portion=portion, max_lag=max_lag, capacity=capacity, iterations=7, seed=seed)
    trained = asyncio.run(fake.train())
    assert sorted(number for numbers in trained for number in numbers) == list(range(7 * portion))
    assert all(numbers == sorted(numbers) and len(numbers) == portion for numbers in trained)
    assert not fake.stream.has_more
    assert fake.most_live <= min(capacity, (max_lag + 1) * portion)
    assert sorted(fake.played) == list(range(7 * portion))
    if max_lag == 0:
        assert trained == [list(range(i * portion, (i + 1) * portion)) for i in range(7)]


@settings(max_examples=40, deadline=None)
@given(until=st.integers(1, 5), **SIZES)
def test_a_stream_that_goes_on_from_a_checkpoint_loses_and_repeats_no_group(
    portion: int, max_lag: int, capacity: int, seed: int, until: int
) -> None:
    sizes = {"portion": portion, "max_lag": max_lag, "capacity": capacity, "iterations": 7}

    async def both() -> list[list[int]]:
        first = Fake(**sizes, seed=seed)
        trained = await first.train(until=until)
        state = first.stream.state()
        await first.stream.close()
        second = Fake(**sizes, seed=seed + 1)
        second.stream.restore(state, iteration=until)
        # What had ended is trained as it was; what had not is played again.
        ended = {one.number for one in state.finished}
        trained += await second.train(start=until)
        assert not ended & set(second.played)
        return trained

    trained = asyncio.run(both())
    assert sorted(number for numbers in trained for number in numbers) == list(range(7 * portion))


async def test_without_lag_nothing_is_played_while_the_learner_updates() -> None:
    fake = Fake(portion=3, max_lag=0, capacity=9, iterations=3, seed=0)
    fake.stream.advance(0)
    await fake.stream.take()
    for _ in range(50):
        await asyncio.sleep(0)
    assert fake.live == 0 and fake.played == [0, 1, 2]
    fake.stream.advance(1)
    await asyncio.sleep(0)
    assert fake.played == [0, 1, 2, 3, 4, 5]


def test_a_slow_group_is_overtaken_until_its_last_chance_and_then_waited_for() -> None:
    # Portions of 2, a lag of 1. Group 0 (version 0) is under way; 1, 2 and 3 have ended.
    one, two, three = (Played(n, v, group_of(n, v)) for n, v in ((1, 0), (2, 0), (3, 1)))
    how = {"portion": 2, "max_lag": 1}
    # Iteration 0: 1 and 2 go first, since 0 may still be trained by iteration 1.
    assert choose([two, one], [0], iteration=0, **how) == [one, two]
    # Iteration 1 is its last chance, so 1 and 3 may not leave it behind.
    assert choose([one, three], [0], iteration=1, **how) is None
    # Nor may two groups of version 0 be left at iteration 0 together with a third.
    assert choose([two, three], [0, 0], iteration=0, **how) == [two, three]
    assert choose([two, three], [0, 0, 0], iteration=0, **how) is None


def test_of_groups_that_have_ended_the_oldest_go_first_then_those_that_ended_first() -> None:
    order = [(7, 1), (5, 0), (9, 1), (2, 0)]
    ended = [Played(number, version, group_of(number, version)) for number, version in order]
    chosen = choose(ended, [], iteration=1, portion=3, max_lag=5)
    assert chosen is not None and [one.number for one in chosen] == [2, 5, 7]


async def test_a_portion_that_was_begun_is_completed_when_the_budget_is_spent() -> None:
    spent = False
    played: list[int] = []

    async def play(number: int) -> Group:
        nonlocal spent
        played.append(number)
        await asyncio.sleep(0)
        spent = True
        return group_of(number, 0)

    stream = Stream(play, portion=3, max_lag=4, capacity=2, begins=lambda _: not spent)
    stream.advance(0)
    assert len((await stream.take()).groups) == 3
    await asyncio.sleep(0)
    assert played == [0, 1, 2] and not stream.has_more


async def test_a_group_that_raises_ends_the_stream_and_what_is_under_way_can_be_waited_for() -> (
    None
):
    ended: list[int] = []

    async def play(number: int) -> Group:
        if number == 1:
            raise ValueError("lost for good")
        await asyncio.sleep(0.01)
        ended.append(number)
        return group_of(number, 0)

    stream = Stream(play, portion=3, max_lag=2, capacity=4, begins=lambda _: True)
    stream.advance(0)
    with pytest.raises(ValueError, match="lost for good"):
        await stream.take()
    await stream.drain()
    assert ended == [0, 2, 3]
    assert stream.state() == StreamState(4, [], stream.state().finished)
    await stream.close()


async def test_seconds_are_those_in_which_something_was_played() -> None:
    now = 0.0

    async def play(number: int) -> Group:
        nonlocal now
        await asyncio.sleep(0)
        now += 2.0
        return group_of(number, 0)

    stream = Stream(
        play, portion=2, max_lag=0, capacity=1, begins=lambda _: True, clock=lambda: now
    )
    stream.advance(0)
    first = await stream.take()
    now += 100.0  # the update
    stream.advance(1)
    second = await stream.take()
    assert (first.seconds, second.seconds, second.waited, second.ahead) == (4.0, 4.0, 4.0, 0)


def test_lag_by_hand() -> None:
    # Five tokens at version 7: lags 0, 1, 2, 2, 2.
    turn = Turn(
        action_ids=np.ones(4, np.int32),
        logprobs=np.zeros(4, np.float32),
        entropies=np.zeros(4, np.float32),
        policy_version=5,
        versions=np.asarray([5, 5, 5, 6], np.int32),
    )
    tree = TrajectoryTree("t", [1])
    tree.add(-1, turn)
    found = lag_metrics([Group("g", "t", (tree,)), group_of(0, 7)], version=7, max_lag=3)
    assert found == {
        "policy/lag_mean": 7 / 5,
        "policy/lag_max": 2.0,
        "policy/mixed_turns": 1.0,
        "policy/lag_0_share": 0.2,
        "policy/lag_1_share": 0.2,
        "policy/lag_2_share": 0.6,
        "policy/lag_3_share": 0.0,
    }
    with pytest.raises(ContractError, match=r"sampled by versions 5 to 7 of .* = 1 may be"):
        lag_metrics([Group("g", "t", (tree,)), group_of(0, 7)], version=7, max_lag=1)
    with pytest.raises(ContractError, match="a version that it does not hold"):
        lag_metrics([group_of(0, 8)], version=7, max_lag=1)


class Picky(Fake):
    """Numbers in `poor` are of no use; the end of a group takes as long as chance says."""

    def __init__(self, *, poor: set[int], spare: int, portion: int, iterations: int, **sizes: int):
        super().__init__(portion=portion, iterations=iterations, **sizes)
        self.stream = Stream(
            self.play,
            portion=portion,
            max_lag=sizes["max_lag"],
            capacity=sizes["capacity"],
            begins=lambda index: index < iterations,
            useful=lambda group: int(group.id) not in poor,
            spare=spare,
        )


def by_hand(poor: set[int], *, portion: int, spare: int, iterations: int) -> list[list[int]]:
    """What each iteration plays: numbers in turn until enough are of use, or the spare is gone."""
    played, number = [], 0
    for _ in range(iterations):
        mine: list[int] = []
        while sum(n not in poor for n in mine) < portion and len(mine) < portion + spare:
            mine.append(number)
            number += 1
        played.append(mine)
    return played


@settings(max_examples=60, deadline=None)
@given(
    poor=st.sets(st.integers(0, 60)),
    spare=st.integers(0, 9),
    portion=st.integers(1, 4),
    capacity=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    until=st.integers(1, 4),
)
def test_without_lag_what_is_played_and_trained_hangs_on_use_alone_and_survives_a_stop(
    poor: set[int], spare: int, portion: int, capacity: int, seed: int, until: int
) -> None:
    sizes = {"portion": portion, "max_lag": 0, "capacity": capacity, "iterations": 5}

    async def both() -> list[tuple[list[int], list[int]]]:
        found = []
        fake = Picky(poor=poor, spare=spare, **sizes, seed=seed)
        for iteration in range(5):
            if iteration == until:
                state = fake.stream.state()
                assert not state.finished and not state.aside and not state.again
                fake = Picky(poor=poor, spare=spare, **sizes, seed=seed + 1)
                fake.stream.restore(state, iteration=until)
            assert fake.stream.has_more
            fake.version = iteration
            fake.stream.advance(iteration)
            portion = await fake.stream.take()
            kept = [int(one.id) for one in portion.groups]
            found.append((kept, [int(one.id) for one in portion.aside]))
        assert not fake.stream.has_more
        return found

    expected = by_hand(poor, portion=portion, spare=spare, iterations=5)
    for (kept, aside), mine in zip(asyncio.run(both()), expected, strict=True):
        assert sorted([*kept, *aside]) == mine and len(kept) == portion
        assert [n for n in kept if n not in poor] == [n for n in mine if n not in poor]
        assert set(aside) <= poor and len(aside) <= spare


@settings(max_examples=40, deadline=None)
@given(poor=st.sets(st.integers(0, 60)), spare=st.integers(0, 6), **SIZES)
def test_with_lag_every_portion_is_full_and_no_group_is_lost(
    poor: set[int], spare: int, portion: int, max_lag: int, capacity: int, seed: int
) -> None:
    sizes = {"portion": portion, "max_lag": max_lag, "capacity": capacity}
    fake = Picky(poor=poor, spare=spare, **sizes, iterations=5, seed=seed)
    aside: list[int] = []

    async def train() -> list[list[int]]:
        trained = []
        for iteration in range(5):
            fake.version = iteration
            fake.stream.advance(iteration)
            taken = await fake.stream.take()
            lag_metrics(taken.groups, version=iteration, max_lag=max_lag)
            trained.append([int(one.id) for one in taken.groups])
            aside.extend(int(one.id) for one in taken.aside)
            await asyncio.sleep(0)
        assert not fake.stream.has_more
        return trained

    trained = asyncio.run(train())
    assert all(len(numbers) == portion for numbers in trained)
    everything = [number for numbers in trained for number in numbers] + aside
    assert sorted(everything) == sorted(fake.played) == list(range(len(everything)))
    assert set(aside) <= poor


async def test_a_group_whose_use_cannot_be_told_ends_the_stream() -> None:
    fake = Fake(portion=1, max_lag=0, capacity=1, iterations=1, seed=0)

    def fails(group: Group) -> bool:
        raise ContractError("no use")

    fake.stream = Stream(
        fake.play, portion=1, max_lag=0, capacity=1, begins=lambda index: index < 1, useful=fails
    )
    fake.stream.advance(0)
    with pytest.raises(ContractError, match="no use"):
        await fake.stream.take()


async def test_a_portion_whose_groups_are_all_set_aside_is_completed_beyond_the_budget() -> None:
    played: list[int] = []

    async def play(number: int) -> Group:
        played.append(number)
        await asyncio.sleep(0)
        return group_of(number, 0)

    stream = Stream(
        play,
        portion=2,
        max_lag=1,
        capacity=2,
        begins=lambda _: not played,
        useful=lambda group: int(group.id) > 2,
        spare=9,
    )
    stream.advance(0)
    portion = await stream.take()
    assert [group.id for group in portion.groups] == ["3", "4"]
    assert [group.id for group in portion.aside] == ["0", "1", "2"]
    assert not stream.has_more


async def test_groups_that_had_all_ended_before_take_no_seconds_and_have_no_rate() -> None:
    async def play(number: int) -> Group:
        await asyncio.sleep(0)
        return group_of(number, 0)

    ticks = iter(range(100))
    stream = Stream(
        play,
        portion=1,
        max_lag=1,
        capacity=2,
        begins=lambda index: index < 2,
        clock=lambda: float(next(ticks)),
    )
    stream.advance(0)
    while len(stream.state().finished) < 2:
        await asyncio.sleep(0)
    first, second = await stream.take(), await stream.take()
    assert first.seconds > 0.0 and second.seconds == 0.0
    rates = [
        Sampled(
            groups=[], fresh=[], played=[], spent=Budget(generated_tokens=6), metrics={},
            seconds=seconds, waited=0.0, ahead=0,
        ).tokens_per_second
        for seconds in (2.0, 0.0)
    ]  # fmt: skip
    assert rates[0] == 3.0 and np.isnan(rates[1])

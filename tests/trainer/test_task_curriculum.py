"""Which tasks a curriculum draws: chances by hand, no repetition, and a state that goes on."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl.core.errors import DataError
from agentrl.core.types import ROOT, Group, StopReason, Task
from agentrl.recipe.selection import CurriculumSettings
from agentrl.testing.trees import chains, tree_of
from agentrl.trainer.tasks import Curriculum

TASKS = [Task(name) for name in "abcd"]


def group(task: str, returns: list[float]) -> Group:
    return Group(task, task, chains(returns).trees)


def drawn(curriculum: Curriculum, position: int, count: int, **others) -> str:
    return "".join(task.id for task in curriculum.take(position, count, **others))


def test_a_state_of_tasks_that_are_gone_is_refused() -> None:
    one = Curriculum(TASKS, CurriculumSettings(), seed=0)
    one.observe([group("b", [1])], "reward")
    with pytest.raises(DataError, match=r"knows task 'b', .* \(1 are gone\)"):
        Curriculum(TASKS[2:], CurriculumSettings(), seed=0).restore(one.state())


def test_rates_and_chances_by_hand() -> None:
    one = Curriculum(TASKS, CurriculumSettings(explore=0.5), seed=0)
    assert one.rates().tolist() == [0.5] * 4
    assert one.chances().tolist() == [0.25] * 4
    one.observe([group("a", [1, 1, 1, 1, 0, 0]), group("b", [0, 0])], "reward")
    # a: (4 + 1) / (6 + 2), b: (0 + 1) / (2 + 2).
    assert one.rates().tolist() == [5 / 8, 1 / 4, 1 / 2, 1 / 2]
    weights = np.array([15 / 64, 3 / 16, 1 / 4, 1 / 4])
    assert one.chances() == pytest.approx(0.5 / 4 + 0.5 * weights / weights.sum())
    # The next visit halves what was known: s = 4/2 + 0, n = 6/2 + 2.
    one.observe([group("a", [0, 0])], "reward")
    assert one.rates()[0] == pytest.approx((2 + 1) / (5 + 2))
    assert one.metrics() == {
        "curriculum/known_tasks": 2.0,
        "curriculum/rate_mean": pytest.approx((3 / 7 + 1 / 4) / 2),
    }


def test_a_band_draws_what_lies_in_it_but_for_the_share_that_explores() -> None:
    one = Curriculum(TASKS, CurriculumSettings(band=(0.2, 0.6), explore=0.2), seed=0)
    one.observe([group("a", [1] * 8), group("b", [0] * 8), group("c", [1, 0])], "reward")
    # a has 9/10 and b 1/10; c and d have 1/2.
    assert one.chances() == pytest.approx([0.05, 0.05, 0.45, 0.45])
    counts = Counter(drawn(one, position, 1) for position in range(2000))
    assert {name: counts[name] / 2000 for name in "abcd"} == pytest.approx(
        {"a": 0.05, "b": 0.05, "c": 0.45, "d": 0.45}, abs=0.035
    )
    # With nothing in the band all are alike.
    one.observe([group("c", [1] * 9), group("d", [1] * 9)], "reward")
    one.observe([group("c", [1] * 9), group("d", [1] * 9)], "reward")
    assert one.chances() == pytest.approx([0.25] * 4)


def test_failures_are_no_attempts_and_scores_are_cut_to_a_rate() -> None:
    one = Curriculum(TASKS, CurriculumSettings(), seed=0)
    lost = tree_of([ROOT], {0: 1.0}, stops={0: StopReason.ENV_ERROR})
    one.observe([Group("a", "a", (lost,)), Group("b", "b", (lost, *chains([0.0]).trees))], "reward")
    assert one.rates().tolist() == [0.5, 1 / 3, 0.5, 0.5]
    one.observe([group("c", [7.0, -3.0]), group("d", [float("nan")])], "reward")
    assert one.rates().tolist() == [0.5, 1 / 3, 0.5, 0.5]
    one.observe([group("elsewhere", [1.0])], "reward")


def test_no_task_comes_twice_while_others_are_left() -> None:
    one = Curriculum(TASKS, CurriculumSettings(), seed=0)
    assert sorted(drawn(one, 0, 4)) == list("abcd")
    assert sorted(drawn(one, 0, 2, without="ab")) == list("cd")
    assert sorted(drawn(one, 3, 6)[:4]) == list("abcd")
    assert len(drawn(one, 3, 2, without="abcd")) == 2


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    visits=st.lists(
        st.tuples(st.sampled_from("abcd"), st.lists(st.sampled_from([0.0, 1.0]))), max_size=9
    ),
    cut=st.integers(0, 9),
)
def test_a_restored_curriculum_goes_on_as_the_one_that_was_not_stopped(seed, visits, cut) -> None:
    whole = Curriculum(TASKS, CurriculumSettings(), seed=seed)
    stopped = Curriculum(TASKS, CurriculumSettings(), seed=seed)
    for number, (task, returns) in enumerate(visits):
        if number == cut:
            state = json.loads(json.dumps(stopped.state()))
            stopped = Curriculum(TASKS, CurriculumSettings(), seed=seed)
            stopped.restore(state)
        assert drawn(whole, number, 2) == drawn(stopped, number, 2)
        for one in (whole, stopped):
            one.observe([group(task, returns)], "reward")
    assert whole.chances().tolist() == stopped.chances().tolist()


@pytest.mark.parametrize("wrong", [{"explore": 0.0}, {"band": [0.5, 0.5]}, {"band": [0.2, 1.5]}])
def test_settings_that_cannot_work_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        CurriculumSettings(**wrong)

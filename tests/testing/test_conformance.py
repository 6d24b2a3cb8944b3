from __future__ import annotations

import asyncio
import copy
import math

import pytest

from agentrl.core.env import Env, StepInfo, StepResult
from agentrl.core.errors import EnvError
from agentrl.core.registry import env_ids, make_env
from agentrl.core.spoil import spoil
from agentrl.core.types import Message, Task
from agentrl.envs.demo import CalculatorEnv, GuessEnv
from agentrl.testing import RULES, check_env, check_env_sync

DEMOS = [id_ for id_ in env_ids() if id_.startswith("demo/")]


class Count(Env):
    """A well-behaved env to spoil: counts to three, "go" counts, anything else does not."""

    forkable = "copy"

    def __init__(self):
        self.state: list[int] | None = None

    def tasks(self, split):
        return [Task(f"{split}-{n}", {"start": n}) for n in range(2)]

    def gold_action(self, task, turn):
        return "go" if turn < 3 else None

    async def reset(self, task, *, seed):
        self.state = [0, 0]
        return (Message.of("user", f"{task.id} {seed}"),)

    async def step(self, action):
        if self.state is None:
            raise EnvError("not in an episode")
        self.state[0] += action == "go"
        self.state[1] += 1
        return self.result(*self.state)

    def result(self, count, turns):
        terminated = count == 3
        truncated = not terminated and turns == 10
        if terminated or truncated:
            self.state = None
        reward = float(terminated)
        observation = (Message.of("user", f"{count}/{turns}"),)
        return StepResult(
            observation, reward, terminated, truncated, StepInfo(rewards={"done": reward})
        )

    async def fork(self):
        return copy.deepcopy(self)


class SameIds(Count):
    def tasks(self, split):
        return [Task("a"), Task("a")]


class Shuffled(Count):
    calls = 0

    def tasks(self, split):
        type(self).calls += 1
        return super().tasks(split)[:: 1 if self.calls % 2 else -1]


class ObjectInData(Count):
    def tasks(self, split):
        return [Task(f"{split}", {"x": object()})]


class NumberKey(Count):
    def tasks(self, split):
        return [Task(f"{split}", {"x": {1: 2}})]


class EarlyStep(Count):
    async def step(self, action):
        self.state = self.state or [0, 0]
        return await super().step(action)


class LateStep(Count):
    async def step(self, action):
        result = await super().step(action)
        self.state = self.state or [9, 9]
        return result


class ListObservation(Count):
    async def reset(self, task, *, seed):
        return list(await super().reset(task, seed=seed))


class NothingAtFirst(Count):
    async def reset(self, task, *, seed):
        await super().reset(task, seed=seed)
        return ()


class OddRole(Count):
    async def reset(self, task, *, seed):
        await super().reset(task, seed=seed)
        return (Message.of("narrator", "once"),)


class StringParts(Count):
    async def reset(self, task, *, seed):
        await super().reset(task, seed=seed)
        return (Message("user", ("text",)),)


class ResetRaises(Count):
    async def reset(self, task, *, seed):
        raise OSError("no data")


class FallsOver(Count):
    async def step(self, action):
        if action == "<think>":
            raise IndexError("list index out of range")
        return await super().step(action)


class PlainTuple(Count):
    async def step(self, action):
        return tuple(await super().step(action))


class Hangs(Count):
    async def step(self, action):
        result = await super().step(action)
        if action == "hello":
            await asyncio.sleep(10)
        return result


class Both(Count):
    def result(self, count, turns):
        result = super().result(count, turns)
        return result._replace(truncated=result.terminated or result.truncated)


class WrongSum(Count):
    def result(self, count, turns):
        return super().result(count, turns)._replace(reward=0.5)


class NotFinite(Count):
    def result(self, count, turns):
        return super().result(count, turns)._replace(reward=math.nan)


class Endless(Count):
    def result(self, count, turns):
        return super().result(count, min(turns, 9))


class Remembers(Count):
    """Reset does not forget how often it was called."""

    resets = 0

    async def reset(self, task, *, seed):
        self.resets += 1
        await super().reset(task, seed=seed)
        return (Message.of("user", f"{self.resets}"),)


class RemembersTurns(Count):
    """Reset forgets the count only."""

    async def reset(self, task, *, seed):
        turns = self.state[1] if self.state else 0
        first = await super().reset(task, seed=seed)
        self.state = [0, turns]
        return first


class Random(Count):
    """Every env that is made tells its own number."""

    made = 0

    def __init__(self):
        super().__init__()
        type(self).made += 1
        self.number = type(self).made

    def result(self, count, turns):
        result = super().result(count, turns)
        return result._replace(observation=(Message.of("user", str(self.number)),))


class Shared(Count):
    """The state is one for all envs."""

    shared: dict[str, list[int] | None] = {}  # noqa: RUF012

    @property
    def state(self):
        return self.shared.get("state")

    @state.setter
    def state(self, value):
        self.shared["state"] = value


class ShallowFork(Count):
    async def fork(self):
        return copy.copy(self)


class ForksItself(Count):
    async def fork(self):
        return self


class ForksAnew(Count):
    async def fork(self):
        twin = type(self)()
        twin.state = [0, 0]
        return twin


class ForkForgotten(Count):
    fork = Env.fork


class OddForkable(Count):
    forkable = "sometimes"


class CloseFreesTheFork(Count):
    """The fork's close empties what the original still uses."""

    def __init__(self):
        super().__init__()
        self.open = [True]

    async def reset(self, task, *, seed):
        self.open = [True]
        return await super().reset(task, seed=seed)

    async def step(self, action):
        if not self.open[0]:
            raise EnvError("closed")
        return await super().step(action)

    async def fork(self):
        twin = copy.deepcopy(self)
        twin.open = self.open
        return twin

    async def close(self):
        self.open[0] = False


class WeakReplay(Random):
    forkable = "replay"


class EveryAnswerIsRight(Count):
    async def step(self, action):
        return await super().step("go")


class GoldIsTooShort(Count):
    def gold_action(self, task, turn):
        return "go" if turn < 2 else None


class ClosesOnce(Count):
    closed = False

    async def close(self):
        if self.closed:
            raise ValueError("closed twice")
        self.closed = True


BAD = [
    (SameIds, "tasks"), (Shuffled, "tasks"), (ObjectInData, "data"), (NumberKey, "data"),
    (EarlyStep, "early_step"), (LateStep, "late_step"), (ListObservation, "observation"),
    (NothingAtFirst, "observation"), (OddRole, "observation"), (StringParts, "observation"),
    (ResetRaises, "observation"), (FallsOver, "result"), (PlainTuple, "result"),
    (Hangs, "result"), (Both, "both"), (WrongSum, "components"), (NotFinite, "components"),
    (Endless, "ends"), (Remembers, "fresh"), (RemembersTurns, "fresh"), (Random, "repeat"),
    (Shared, "alone"), (ShallowFork, "leak"), (ForksItself, "leak"), (ForksAnew, "fork"),
    (ForkForgotten, "fork"), (OddForkable, "fork"), (CloseFreesTheFork, "leak"),
    (WeakReplay, "fork"), (EveryAnswerIsRight, "gold"), (GoldIsTooShort, "gold"),
    (ClosesOnce, "close"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "rule"), BAD, ids=[bad.__name__ for bad, _ in BAD])
def test_every_broken_rule_is_found_and_said_in_its_sentence(bad, rule):
    seconds = 0.05 if bad is Hangs else 60.0
    with pytest.raises(EnvError) as caught:
        check_env_sync(bad, seconds=seconds)
    assert f"\n- {RULES[rule]}: " in str(caught.value)


def test_there_is_a_bad_env_for_every_rule():
    assert {rule for _, rule in BAD} == set(RULES)


def test_a_violation_names_the_task_the_turn_and_what_was_found():
    with pytest.raises(EnvError) as caught:
        check_env_sync(WrongSum)
    assert "WrongSum breaks" in str(caught.value)
    assert "task 'train-0', turn 0, action 'go': reward 0.5, components {'done': 0.0}" in str(
        caught.value
    )


def test_a_good_env_breaks_no_rule_and_the_report_says_what_was_checked():
    report = check_env_sync(Count)
    assert report.env == "Count" and report.skipped == ()
    assert report.checked == tuple(RULES)
    assert report.tasks == ("train-0", "train-1", "eval-0", "eval-1")


async def test_what_does_not_apply_is_skipped_with_the_reason():
    class Plain(Count):
        forkable = "no"
        gold_action = Env.gold_action

    report = await check_env(Plain, tasks=[Task("t")], scripts=[["go", "go", "go"]])
    assert dict(report.skipped) == {
        "fork": "forkable = 'no'",
        "leak": "forkable = 'no'",
        "gold": "the env has no gold actions",
    }


async def test_an_env_without_tasks_needs_some():
    class Bare(Count):
        tasks = Env.tasks

    with pytest.raises(EnvError, match="no tasks of its own"):
        await check_env(Bare)
    assert (await check_env(Bare, tasks=[Task("t")])).tasks == ("t",)


@pytest.mark.parametrize("id_", DEMOS)
def test_the_built_in_demonstrations_keep_the_contract(id_):
    report = check_env_sync(lambda: make_env(id_))
    assert "leak" in report.checked


def test_the_calculator_keeps_the_contract_in_json_too():
    assert check_env_sync(lambda: CalculatorEnv(format="json")).skipped == ()


async def test_a_guess_by_halves_finds_the_number():
    env = GuessEnv(highest=100)
    for seed in range(5):
        await env.reset(Task("t"), seed=seed)
        low, high, result = 1, 100, None
        while result is None or not (result.terminated or result.truncated):
            guess = (low + high) // 2
            result = await env.step(str(guess))
            if result.observation and result.observation[0].text == "higher":
                low = guess + 1
            else:
                high = guess - 1
        assert result.terminated and result.reward == 1.0


def test_spoiling_changes_what_stands_between_tags_only():
    assert spoil("<answer> Oslo 1989</answer>") == "<answer> Ptmp 2090</answer>"
    assert spoil("plain z9") == "qmbjo a0"
    assert spoil(r"is $\boxed{\frac{1}{9}}$, \boxedx") == r"jt $\boxed{\gsbd{2}{0}}$, \cpyfey"

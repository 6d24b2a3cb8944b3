"""Answering again after a wrong answer: UFO's rewards by hand, forks, and what is refused."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.try_again import FEEDBACK, TryAgain
from agentrl.core.types import Message, Task
from agentrl.testing.conformance import check_env

TASK = Task("t", {"answer": "7"})


class Quiz(Env):
    """One answer; says the right one at its end, which a policy that goes on must not read."""

    forkable = "copy"

    def __init__(self, *, partial: float = 0.0) -> None:
        self.partial, self.over, self.closed = partial, True, 0

    def tasks(self, split):
        return [Task(f"{split}-7", {"answer": "7"})]

    def gold_action(self, task, turn):
        return task.data["answer"]

    def answer_of(self, action):
        return None if action == "?" else action

    async def reset(self, task, *, seed) -> Observation:
        self.task, self.over = task, False
        return (Message.of("user", "What is 3 + 4?"),)

    async def step(self, action) -> StepResult:
        if self.over:
            raise EnvError("over")
        self.over = True
        right = action == self.task.data["answer"]
        worth = 1.0 if right else self.partial
        told = (Message.of("user", f"It was {self.task.data['answer']}."),)
        info = StepInfo(rewards={"correct": worth}, state_key=action, metrics={"inner": 3.0})
        return StepResult(told, worth, action != "?", action == "?", info)

    async def fork(self):
        twin = Quiz(partial=self.partial)
        twin.task, twin.over = self.task, self.over
        return twin

    async def close(self) -> None:
        self.closed += 1


class ReplayQuiz(Quiz):
    forkable = "replay"


class FixedQuiz(Quiz):
    forkable = "no"


async def play(env, actions):
    await env.reset(TASK, seed=0)
    return [await env.step(action) for action in actions]


def total(results) -> float:
    return sum(one.reward for one in results)


@pytest.mark.parametrize(
    ("actions", "worth"),
    [
        (["7"], 1.0),
        (["1", "7"], 0.5),
        (["1", "2", "7"], 0.25),
        (["1", "2", "3", "4", "7"], 0.0625),
        (["1", "2", "3", "4", "5"], 0.0),
        (["1", "1", "1", "1", "1"], -0.4),
        (["1", "2", "1", "2", "7"], 0.0625 - 0.2),  # 3 different of 5
        (["1", "1", "7"], 0.25 - 0.5 / 3),
        (["a b", "AB", "c", "d", "e"], -0.5 * (1 - 4 / 5)),  # case and white space do not count
        (["?", "7"], 0.5 - 0.1),  # an attempt without an answer: paid at once, in neither count
        (["?", "?", "?", "?", "?"], -0.5),
        (["1", "?", "1", "?", "7"], 0.0625 - 0.2 - 0.5 * (1 - 2 / 3)),
    ],
)
@pytest.mark.parametrize("inner", [Quiz, ReplayQuiz])
async def test_the_return_is_ufos_by_hand(inner, actions, worth) -> None:
    results = await play(TryAgain(inner()), actions)
    assert total(results) == pytest.approx(worth)
    assert all(sum(one.info.rewards.values()) == pytest.approx(one.reward) for one in results)
    solved = actions[-1] == "7"
    assert [one.terminated for one in results] == [False] * (len(actions) - 1) + [solved]
    assert [one.truncated for one in results] == [False] * (len(actions) - 1) + [not solved]


def ufo(actions: list[str], attempts: int) -> float:
    """UFO's return from its definition: gamma^t if solved at t, less repeats, less invalid ones."""
    played = actions[: actions.index("7") + 1] if "7" in actions else actions
    played = played[:attempts]
    given = ["".join(action.split()).lower() for action in played if action != "?"]
    solved = 0.5 ** (len(played) - 1) if played[-1] == "7" else 0.0
    repeats = 0.5 * (1 - len(set(given)) / len(given)) if given else 0.0
    return solved - repeats - 0.1 * played.count("?")


@settings(max_examples=150, deadline=None)
@given(
    actions=st.lists(st.sampled_from(["1", "2", "a b", "AB", "?", "7"]), min_size=5, max_size=5),
    attempts=st.integers(1, 5),
)
def test_any_episode_earns_what_the_definition_says_within_its_bounds(actions, attempts) -> None:
    async def returns() -> tuple[float, StepResult]:
        env = TryAgain(Quiz(), attempts=attempts)
        await env.reset(TASK, seed=0)
        earned = 0.0
        for action in actions:
            result = await env.step(action)
            earned += result.reward
            if result.terminated or result.truncated:
                return earned, result
        raise AssertionError("an episode that does not end")

    earned, last = asyncio.run(returns())
    assert earned == pytest.approx(ufo(actions, attempts))
    invalid = 0.1 * actions[: int(last.info.metrics["attempts"])].count("?")
    assert earned + invalid + 1e-12 >= -0.4 and earned <= 1.0
    # Solved within k attempts: never fewer for more attempts.
    solved = last.info.metrics["solved"]
    assert (last.terminated, last.truncated) == (bool(solved), not solved)
    assert solved == float("7" in actions[:attempts])


async def test_the_policy_reads_that_it_was_wrong_and_nothing_else() -> None:
    results = await play(TryAgain(Quiz()), list("12345"))
    assert [one.observation for one in results] == [(Message.of("user", FEEDBACK),)] * 4 + [()]
    # The published code says "Correct!" at the limit.
    assert "Correct!" not in str(results[-1])
    said = [one.info for one in results[:4]]
    assert all(info.rewards == {} and info.metrics == {} for info in said)


async def test_metrics_tell_attempts_and_unique_answers() -> None:
    *_, last = await play(TryAgain(Quiz()), ["1", "1", "?", "7"])
    assert last.info.metrics == {
        "inner": 3.0,
        "attempts": 4.0,
        "answers": 3.0,
        "unique_answers": 2.0,
        "solved": 1.0,
    }
    assert last.info.rewards == {
        "correct": pytest.approx(0.125),
        "repeats": pytest.approx(-0.5 / 3),
    }


async def test_the_settings_change_what_they_say() -> None:
    env = TryAgain(
        Quiz(partial=0.4),
        attempts=2,
        feedback="No.",
        decay=0.9,
        repetition_penalty=0.0,
        invalid_penalty=0.0,
        solved_reward=0.4,
    )
    assert total(await play(env, ["1"])) == pytest.approx(0.4)
    env = TryAgain(Quiz(partial=0.4), attempts=2, feedback="No.", decay=0.9, repetition_penalty=0.0)
    first, second = await play(env, ["1", "1"])
    assert first.observation == (Message.of("user", "No."),)
    # The last attempt's reward counts, a share of it too.
    assert (first.reward, second.reward) == (0.0, pytest.approx(0.36))
    assert second.truncated


async def test_states_after_different_wrong_answers_have_different_keys() -> None:
    env = TryAgain(make_env("demo/calculator"))
    task = env.tasks("train")[0]
    keys = set()
    for wrong in ("<answer>1</answer>", "<answer>2</answer>"):
        await env.reset(task, seed=0)
        keys.add((await env.step(wrong)).info.state_key)
        keys.add((await env.step(env.gold_action(task, 0))).info.state_key)
    assert len(keys) == 4


async def test_what_was_found_before_a_wrong_answer_stays() -> None:
    env = TryAgain(make_env("demo/calculator", max_turns=4))
    task = env.tasks("train")[0]
    await env.reset(task, seed=0)
    await env.step(env.gold_action(task, 0))
    assert env.tool_calls == 1
    for _ in range(3):
        result = await env.step("<answer>0</answer>")
        assert not result.terminated and not result.truncated
    # Wrong answers take none of the 4 turns of the inner environment.
    assert (env.turn, env.tool_calls) == (1, 1)
    await env.step(env.gold_action(task, 1))
    last = await env.step(env.gold_action(task, 2))
    assert last.terminated and last.info.rewards["correct"] == 0.5**3


async def test_environments_that_are_left_behind_are_closed() -> None:
    made: list[Quiz] = []

    class Counted(Quiz):
        async def fork(self):
            twin = Counted()
            twin.task, twin.over = self.task, self.over
            made.append(twin)
            return twin

    first = Counted()
    env = TryAgain(first)
    await play(env, ["1", "2", "7"])
    await env.close()
    assert [one.closed for one in (first, *made)] == [1, 1, 1, 1]


async def test_a_fork_goes_on_alone() -> None:
    env = TryAgain(Quiz())
    await play(env, ["1"])
    twin = await env.fork()
    assert (await twin.step("7")).reward == 0.5
    assert (await env.step("1")).observation == (Message.of("user", FEEDBACK),)
    assert (await env.step("7")).reward == pytest.approx(0.25 - 0.5 / 3)


@pytest.mark.parametrize(
    "id",
    [
        "demo/calculator",
        "demo/guess",
        "math/problems",
        pytest.param("search/facts", marks=pytest.mark.slow),
    ],
)
async def test_it_keeps_the_contract_around_other_environments(id) -> None:
    def make():
        return make_env(id, wrappers=[{"type": "try_again", "attempts": 3}])

    report = await check_env(make)
    assert {rule for rule, _ in report.skipped} <= {"the env has no gold actions", "gold"}


async def test_it_keeps_the_contract_around_the_quizzes() -> None:
    for inner in (Quiz, ReplayQuiz):
        scripts = [["1", "1"], ["?", "2"]]
        report = await check_env(lambda inner=inner: TryAgain(inner()), scripts=scripts)
        assert report.skipped == ()


async def test_an_oracle_goes_on_after_wrong_answers() -> None:
    env = make_env("demo/calculator", wrappers=[{"type": "try_again"}])
    task = env.tasks("train")[0]
    seen = [(await env.reset(task, seed=0))[0].text]
    wrong = await env.step("<answer>0</answer>")
    seen.append(f"<|user|>{wrong.observation[0].text}<|end|>")
    while True:
        result = await env.step(env.expert_action(task, seen))
        if result.terminated:
            break
        seen.append(result.observation[0].text)
    assert result.info.rewards["correct"] == 0.5


def test_an_environment_that_cannot_be_set_back_is_refused() -> None:
    with pytest.raises(RecipeError, match="has forkable = 'no': it cannot be set back"):
        TryAgain(FixedQuiz())


@pytest.mark.parametrize(
    "settings", [{"attempts": 0}, {"decay": 1.5}, {"invalid_penalty": -1.0}, {"feedback": " "}]
)
def test_settings_that_cannot_work_are_refused(settings) -> None:
    with pytest.raises(RecipeError, match="try_again needs"):
        TryAgain(Quiz(), **settings)


async def test_a_replay_that_goes_another_way_is_a_failure_of_the_environment() -> None:
    class Fickle(ReplayQuiz):
        resets = 0

        async def reset(self, task, *, seed):
            self.resets += 1
            first = await super().reset(task, seed=seed)
            return (*first, Message.of("user", str(self.resets)))

    env = TryAgain(Fickle())
    await env.reset(TASK, seed=0)
    with pytest.raises(EnvError, match="another observation than before"):
        await env.step("1")


async def test_a_step_after_the_end_is_refused() -> None:
    env = TryAgain(Quiz())
    await play(env, ["7"])
    with pytest.raises(EnvError, match="before reset or after the end"):
        await env.step("7")

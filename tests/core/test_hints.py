"""Hints: how much of the expert's episode or of a solution in words stands in the prompt."""

from __future__ import annotations

import pytest

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.hints import LEAD, Hints, hinted
from agentrl.core.registry import make_env
from agentrl.core.types import Message, Task
from agentrl.testing.conformance import check_env

TASK = Task("t", {"digits": "1234", "solution": "First add, then carry."})


class Keys(Env):
    """Press the digits in order; the display shows how many are pressed."""

    forkable = "replay"

    def __init__(self, *, role: str = "user", fickle: bool = False) -> None:
        self.role, self.fickle, self.resets = role, fickle, 0

    def expert_action(self, task, seen):
        assert set(task.data) == {"digits", "solution"}, "the hint is not the environment's"
        assert [text[-1:] for text in seen[1:]] == [str(n) for n in range(1, len(seen))]
        return task.data["digits"][len(seen) - 1]

    def gold_action(self, task, turn):
        return task.data["digits"][turn]

    async def reset(self, task, *, seed) -> Observation:
        self.digits, self.at, self.resets = task.data["digits"], 0, self.resets + 1
        again = f" {self.resets}" if self.fickle else ""
        return (Message.of("system", "Press."), Message.of("user", f"{self.digits}, {seed}{again}"))

    async def step(self, action) -> StepResult:
        right = action == self.digits[self.at]
        self.at += 1
        over = not right or self.at == len(self.digits)
        shown = () if over else (Message.of(self.role, f"pressed {self.at}"),)
        info = StepInfo(metrics={"pressed": float(self.at)})
        return StepResult(shown, float(over and right), over, False, info)


def texts(observation: Observation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in observation]


@pytest.mark.parametrize(
    ("share", "given"),
    [(0.0, 0), (0.1, 1), (0.25, 1), (0.5, 2), (0.51, 3), (0.75, 3), (0.99, 3)],
)
@pytest.mark.parametrize("role", ["user", "tool", "inline"])
async def test_the_first_k_of_n_actions_are_played_and_shown(share, given, role) -> None:
    env = Hints(Keys(role=role))
    task = hinted(TASK, share) if share else TASK
    shown = await env.reset(task, seed=7)
    led = [
        pair
        for n in range(given)
        for pair in (
            ("inline" if role == "inline" else "assistant", "1234"[n]),
            (role, f"pressed {n + 1}"),
        )
    ]
    assert texts(shown) == [("system", "Press."), ("user", "1234, 7"), *led]
    # The environment stands behind them: the next digit is right, and the last one is paid.
    for at in range(given, 4):
        result = await env.step("1234"[at])
        expected = {"pressed": at + 1.0} | ({"hint": share} if share else {})
        assert result.info.metrics == expected
    assert result.terminated and result.reward == 1.0


async def test_a_solution_in_words_is_cut_by_characters() -> None:
    env = Hints(Keys(), reference="solution")
    assert len(TASK.data["solution"]) == 22
    for share, told in ((0.25, "First"), (0.5, "First add, "), (0.75, "First add, then ")):
        shown = await env.reset(hinted(TASK, share), seed=0)
        assert texts(shown) == [("system", "Press."), ("user", "1234, 0" + LEAD + told)]
    assert texts(await env.reset(TASK, seed=0))[-1] == ("user", "1234, 0")


async def test_a_new_episode_without_a_hint_has_none() -> None:
    env = Hints(Keys())
    await env.reset(hinted(TASK, 0.5), seed=0)
    await env.reset(TASK, seed=0)
    assert "hint" not in (await env.step("1")).info.metrics


async def test_one_action_is_never_given_away() -> None:
    env = Hints(Keys())
    shown = await env.reset(hinted(Task("t", {"digits": "5", "solution": ""}), 0.75), seed=0)
    assert len(shown) == 2


def test_an_oracle_sees_the_task_and_not_the_hint() -> None:
    env = Hints(Keys())
    assert env.gold_action(hinted(TASK, 0.5), 1) == "2"
    assert env.expert_action(hinted(TASK, 0.5), ("",)) == "1"
    assert hinted(TASK, 0.5).id == TASK.id


async def test_what_cannot_be_hinted_at_is_named() -> None:
    with pytest.raises(EnvError, match="no text 'proof' to hint at; its data has digits, solution"):
        await Hints(Keys(), reference="proof").reset(hinted(TASK, 0.5), seed=0)
    with pytest.raises(EnvError, match="a second reset of task 't' showed something else"):
        await Hints(Keys(fickle=True)).reset(hinted(TASK, 0.5), seed=0)
    with pytest.raises(RecipeError, match="needs a lead"):
        Hints(Keys(), reference="solution", lead=" ")

    class Silent(Keys):
        def expert_action(self, task, seen):
            return None

    with pytest.raises(EnvError, match="no expert action for turn 0"):
        await Hints(Silent()).reset(hinted(TASK, 0.5), seed=0)

    class Both(Keys):
        async def step(self, action):
            result = await super().step(action)
            return result._replace(observation=(*result.observation, Message.of("inline", "!")))

    env = Both()
    env.expert_action = lambda task, seen: task.data["digits"][len(seen) - 1]
    with pytest.raises(EnvError, match="speaks both inline and in turns"):
        await Hints(env).reset(hinted(TASK, 0.5), seed=0)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
async def test_the_expert_goes_on_where_the_hint_ends(share) -> None:
    env = make_env("demo/calculator", wrappers=[{"type": "hints"}])
    task = env.tasks("train")[0]
    plain = await env.reset(task, seed=0)
    shown = await env.reset(hinted(task, share), seed=0)
    # Three actions: two calculations and the answer. Results continue the policy's own turn.
    turn = {0.25: 1, 0.5: 2, 0.75: 2}[share]
    told = [message.text for message in shown[len(plain) :] if message.role == "inline"]
    assert told[::2] == [env.gold_action(task, at) for at in range(turn)]
    while True:
        result = await env.step(env.gold_action(task, turn))
        turn += 1
        if result.terminated:
            break
    assert turn == 3 and result.reward == 1.0


async def test_it_keeps_the_contract() -> None:
    await check_env(lambda: make_env("demo/calculator", wrappers=[{"type": "hints"}]))

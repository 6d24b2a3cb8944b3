"""A Python session: its questions and calls, and branches with exactly their parent's state."""

from __future__ import annotations

import shutil
from itertools import islice
from typing import Any, Self

import pytest

from agentrl.core.env import Env, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Task
from agentrl.envs.code import SessionEnv
from agentrl.envs.code.chains import REDUCTIONS, compositions, list_names
from agentrl.sandbox import BubblewrapSettings, DockerSettings, Limits, shared
from agentrl.testing import check_env

needs_bwrap = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.bubblewrap,
    pytest.mark.skipif(
        shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap"
    ),
]
TASK = Task(
    "t",
    {
        "question": "?",
        "lists": {"fex": [3, 1], "dum": [5]},
        "statements": ["a = sum(fex)", "dum.append(a)", "sum(dum)"],
        "answer": "9",
    },
)


def played(lists: dict[str, list[int]], statements: list[str]) -> object:
    """What the last of the statements gives in plain Python."""
    names: dict[str, Any] = {name: list(numbers) for name, numbers in lists.items()}
    for statement in statements[:-1]:
        exec(statement, names)
    return eval(statements[-1], names)


def test_the_statements_of_every_task_give_its_answer() -> None:
    env = SessionEnv()
    for split, count in (("train", 1024), ("eval", 300)):
        tasks = env.tasks(split)
        assert len(tasks) == count
        assert len({task.data["question"] for task in tasks}) == count
        for task in tasks:
            data = task.data
            assert str(played(data["lists"], data["statements"])) == data["answer"]
            assert len(data["statements"]) in (2, 3)
    assert env.tasks("other") == ()


def test_no_number_of_a_list_is_shown() -> None:
    for task in SessionEnv().tasks("eval"):
        shown = {
            int(one)
            for one in "".join(c if c.isdigit() else " " for c in task.data["question"]).split()
        }
        assert len(shown) <= 1, "at most the constant of `a + 3`"


def test_evaluation_has_other_names_and_combinations_of_what_training_has() -> None:
    assert not set(list_names("train")) & set(list_names("eval"))
    assert not set(compositions("train")) & set(compositions("eval"))
    for split in ("train", "eval"):
        known = compositions(split)  # type: ignore[arg-type]
        assert {one.shape for one in known} == {"constant", "pair", "append"}
        assert {one.first for one in known} == set(REDUCTIONS)
    names = {task.id: set(task.data["lists"]) for task in SessionEnv().tasks("eval")}
    assert set().union(*names.values()) <= set(list_names("eval"))


def test_demonstrations_are_of_training_and_repeat_themselves() -> None:
    env = SessionEnv()
    shown = list(islice(env.demonstrations(seed=3), 300))
    assert shown == list(islice(env.demonstrations(seed=3), 300))
    assert shown != list(islice(env.demonstrations(seed=4), 300))
    unseen = set(list_names("eval"))
    for one in shown:
        assert not unseen & set(one.prompt[0].text.replace("`", " ").split())
        *calls, (answer, nothing) = one.turns
        number = answer.removeprefix("<answer>").removesuffix("</answer>")
        assert calls[-1][1][0].text == f"<result>{number}</result>"
        assert {call[1][0].text for call in calls[:-1]} == {"<result></result>"}
        assert nothing == ()


def test_the_expert_slips_about_two_times_in_five() -> None:
    words = {word: name for name, word in REDUCTIONS.items()}
    right = wrong = 0
    for one in islice(SessionEnv().demonstrations(seed=0), 2000):
        asked = words[one.prompt[0].text.split(" of ")[0].rsplit(" ", 1)[1]]
        done = one.turns[0][0].removeprefix("<python>a = ").split("(")[0]
        right, wrong = right + (asked == done), wrong + (asked != done)
    assert 0.36 < wrong / (right + wrong) < 0.44


def test_sessions_fork_as_their_sandbox_does() -> None:
    assert SessionEnv().forkable == "copy"
    assert SessionEnv(sandbox=DockerSettings()).forkable == "replay"
    with pytest.raises(RecipeError, match="operations >= 1"):
        SessionEnv(operations=0)


async def say(env: Env, code: str) -> str:
    result: StepResult = await env.step(f"<python>{code}</python>")
    return "".join(one.text for one in result.observation)


class TestCalls:
    pytestmark = needs_bwrap

    async def test_an_episode_by_hand(self) -> None:
        env = SessionEnv()
        assert (await env.reset(TASK, seed=0))[0].text == "?"
        assert await say(env, "a = sum(fex)") == "<result></result>"
        assert await say(env, "dum.append(a)") == "<result></result>"
        assert await say(env, "sum(dum)") == "<result>9</result>"
        result = await env.step("<answer> 9 </answer>")
        assert (result.reward, result.terminated) == (1.0, True)
        await env.close()

    async def test_one_operation_is_allowed_in_a_call(self) -> None:
        env = SessionEnv(max_turns=20)
        await env.reset(TASK, seed=0)
        for code in ("sum(fex) + 1", "a = 1 + 2 * 3", "print(sum(fex))", "for n in fex: sum(fex)"):
            assert "operations in one call, 1 allowed" in await say(env, code)
        for code, shown in (("fex[0]", "3"), ("fex", "[3, 1]"), ("a = b = 4", ""), ("a", "4")):
            assert await say(env, code) == f"<result>{shown}</result>"
        await env.close()
        free = SessionEnv(operations=None)
        await free.reset(TASK, seed=0)
        assert await say(free, "for n in fex: print(sum(dum) + n)") == "<result>8\n6</result>"
        await free.close()

    async def test_a_mistake_is_shown_as_the_last_line_of_its_traceback(self) -> None:
        env = SessionEnv(operations=None)
        await env.reset(TASK, seed=0)
        assert await say(env, "nope") == "<result>NameError: name 'nope' is not defined</result>"
        assert "SyntaxError" in await say(env, "a = = 1")
        assert await say(env, "print(1); [][2]") == (
            "<result>1\nIndexError: list index out of range</result>"
        )
        assert "its variables are gone" in await say(env, "import os; os._exit(3)")
        assert "NameError" in await say(env, "fex")
        await env.close()

    async def test_a_call_that_runs_for_ever_costs_its_limit(self) -> None:
        limits = Limits(wall_seconds=1.0, cpu_seconds=0.3)
        env = SessionEnv(operations=None, sandbox=BubblewrapSettings(limits=limits))
        await env.reset(TASK, seed=0)
        assert "error: time limit" in await say(env, "while True: pass")
        await env.close()


class FreshFork(SessionEnv):
    """Broken on purpose: a branch gets a new session that holds the task's lists and no more."""

    async def fork(self) -> Self:
        session, self._session = self._session, None
        twin = await super().fork()
        self._session = session
        if session is not None:
            twin._session = await shared(self.sandbox).open()
            assert self._task is not None
            for name, numbers in self._task.data["lists"].items():
                await twin._session.execute(f"{name} = {numbers}")
        return twin


class SharedFork(SessionEnv):
    """Broken on purpose: a branch works in the session of its parent."""

    async def fork(self) -> Self:
        session, self._session = self._session, None
        twin = await super().fork()
        self._session = twin._session = session
        return twin


PREFIX = (
    "seen = []",
    "fex.append(7); seen.append('prefix')",
    "open('note.txt', 'w').write('prefix')",
    "import random; random.seed(5); random.random()",
    "class Box: pass\nbox = Box(); box.items = {'a': [1]}; alias = box.items['a']",
)
"""Rebinding, changes in place, a file, the state of a module, an object that has two names."""

LOOK = (
    "fex, dum, seen",
    "open('note.txt').read()",
    "random.random()",
    "alias.append(2); box.items",
)


def changed(name: str) -> tuple[str, ...]:
    return (
        f"fex.append({name!r}); seen[0] += {name!r}; dum = {name!r}",
        f"open('note.txt', 'a').write({name!r})",
        f"random.seed({name!r})",
        f"alias[0] = {name!r}",
    )


async def straight(actions: tuple[str, ...]) -> list[str]:
    """What the looks show after `actions`, played in one session without any fork."""
    env = SessionEnv(operations=None, max_turns=40)
    await env.reset(TASK, seed=0)
    for code in actions:
        await say(env, code)
    shown = [await say(env, code) for code in LOOK]
    await env.close()
    return shown


async def faults_of_forks(make: type[SessionEnv]) -> list[str]:
    """Branches that see another state than their own history, by name."""
    root = make(operations=None, max_turns=40)
    await root.reset(TASK, seed=0)
    for code in PREFIX:
        await say(root, code)
    branches: dict[str, tuple[Env, tuple[str, ...]]] = {}
    for name in ("left", "right"):
        twin = await root.fork()
        for code in changed(name):
            await say(twin, code)
        branches[name] = (twin, (*PREFIX, *changed(name)))
    left, history = branches["left"]
    inner = await left.fork()
    for code in changed("inner"):
        await say(inner, code)
    branches["inner"] = (inner, (*history, *changed("inner")))
    branches["root"] = (root, PREFIX)
    faults = []
    for name, (env, history) in branches.items():
        if [await say(env, code) for code in LOOK] != await straight(history):
            faults.append(name)
    for env, _ in branches.values():
        await env.close()
    return faults


class TestForks:
    pytestmark = needs_bwrap

    async def test_a_branch_has_exactly_the_state_of_its_parent(self) -> None:
        assert await faults_of_forks(SessionEnv) == []

    @pytest.mark.parametrize(
        ("broken", "faults"),
        [
            (FreshFork, ["left", "right", "inner"]),
            (SharedFork, ["left", "right", "inner", "root"]),
        ],
    )
    async def test_a_broken_fork_is_found(
        self, broken: type[SessionEnv], faults: list[str]
    ) -> None:
        assert await faults_of_forks(broken) == faults

    async def test_a_branch_outlives_its_parent(self) -> None:
        root = SessionEnv(operations=None)
        await root.reset(TASK, seed=0)
        await say(root, "a = [1]")
        twin = await root.fork()
        await root.close()
        assert await say(twin, "a.append(2); a") == "<result>[1, 2]</result>"
        await twin.close()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("broken", "rule"),
        [
            (FreshFork, "a fork goes on as its original would"),
            (SharedFork, "a fork and its original do not notice each other"),
        ],
    )
    async def test_the_conformance_kit_finds_a_broken_fork(
        self, broken: type[SessionEnv], rule: str
    ) -> None:
        with pytest.raises(EnvError, match=rule):
            await check_env(broken, tasks=[TASK])
        assert "fork" in (await check_env(SessionEnv, tasks=[TASK])).checked

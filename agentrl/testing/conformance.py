"""The conformance kit: an environment is played in every way that the contract speaks of."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar, get_args

from agentrl.core.env import Env, Forkable, Observation, StepResult
from agentrl.core.errors import EnvError
from agentrl.core.fork import fork_env
from agentrl.core.spoil import spoil
from agentrl.core.types import Image, Message, Task, Text

T = TypeVar("T")

RULES: Final = {
    "tasks": "the tasks of a split come in a fixed order, with different ids",
    "data": "a task's data is plain data that survives JSON",
    "early_step": "step before reset raises",
    "observation": "an observation is a tuple of messages of known roles; reset gives at least one",
    "result": "step returns a StepResult, whatever the text of the action",
    "both": "an episode is not terminated and truncated at once",
    "components": "the reward is finite and the sum of its components",
    "late_step": "step after the end raises",
    "ends": "every episode ends",
    "fresh": "reset after any use equals reset of a fresh env",
    "repeat": "the same task, seed and actions give the same observations and rewards",
    "alone": "two envs played in turn do not notice each other",
    "fork": "a fork goes on as its original would",
    "leak": "a fork and its original do not notice each other",
    "gold": "gold actions end the episode and earn more than spoiled ones",
    "close": "close frees the env, before and after use, and may be called twice",
}
"""Every rule as the sentence that a violation is reported with."""

JUNK: Final = (
    "",
    "hello",
    "1",
    "</answer><answer>",
    "<tool_call>{</tool_call>",
    "<think>",
    "\u2028\x00\U0001f600",
)
"""Actions that no environment should fall over."""

_ORDERS = ("twin_goes", "original_goes", "twin_strays", "original_strays", "beside")
_ROLES = ("system", "user", "assistant", "tool", "inline")


@dataclass(frozen=True, slots=True)
class EnvReport:
    """What was checked: rules by name, and those that do not apply, with the reason."""

    env: str
    tasks: tuple[str, ...]
    checked: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


class _Script(NamedTuple):
    """Actions to play on a task, and what playing them gave the first time."""

    task: Task
    actions: tuple[str, ...]
    first: Observation
    results: tuple[StepResult, ...]

    @property
    def episode_return(self) -> float:
        return math.fsum(one.reward for one in self.results)


async def check_env(
    make: Callable[[], Env],
    *,
    tasks: Sequence[Task] | None = None,
    scripts: Sequence[Sequence[str]] = (),
    seed: int = 0,
    max_turns: int = 64,
    seconds: float = 60.0,
) -> EnvReport:
    """Check the contract of `agentrl.core.env.Env`, rule by rule (`RULES`).

    `make` builds a fresh env. `tasks` defaults to two of each split. `scripts` are actions to
    play beside the gold ones and the junk that the kit brings: give some where an env has no
    gold actions. An episode longer than `max_turns`, a call longer than `seconds` break a rule.

    Raises:
        EnvError: lists every violation, each with its rule, the task and what was found.
    """
    kit = _Kit(make, tasks, tuple(map(tuple, scripts)), seed, max_turns, seconds)
    await kit.run()
    name = type(make()).__name__
    if kit.violations:
        lines = "\n".join(f"- {RULES[rule]}: {what}" for rule, what in kit.violations.items())
        raise EnvError(f"{name} breaks {len(kit.violations)} rules of the contract:\n{lines}")
    return EnvReport(
        env=name,
        tasks=tuple(task.id for task in kit.tasks),
        checked=tuple(rule for rule in RULES if rule not in kit.skipped),
        skipped=tuple(kit.skipped.items()),
    )


def check_env_sync(
    make: Callable[[], Env],
    *,
    tasks: Sequence[Task] | None = None,
    scripts: Sequence[Sequence[str]] = (),
    seed: int = 0,
    max_turns: int = 64,
    seconds: float = 60.0,
) -> EnvReport:
    """`check_env` from synchronous code."""
    return asyncio.run(
        check_env(
            make, tasks=tasks, scripts=scripts, seed=seed, max_turns=max_turns, seconds=seconds
        )
    )


@dataclass
class _Kit:
    make: Callable[[], Env]
    given_tasks: Sequence[Task] | None
    given_scripts: tuple[tuple[str, ...], ...]
    seed: int
    max_turns: int
    seconds: float
    tasks: tuple[Task, ...] = ()
    violations: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    gold: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)

    async def run(self) -> None:
        self._check_tasks()
        if not self.tasks:
            raise EnvError("the env has no tasks of its own to check it with: give `tasks`")
        await self._guarded("early_step", self._check_early_step())
        scripts: list[_Script] = []
        for task in self.tasks:
            for actions in (*await self._gold(task), *self.given_scripts, JUNK):
                script = await self._record(task, actions)
                if script is not None:
                    scripts.append(script)
        for script in scripts:
            await self._guarded("repeat", self._check_repeat(script))
            if script.task == self.tasks[0]:
                await self._guarded("fork", self._check_fork(script))
        for one, other in pairwise(scripts):
            await self._guarded("alone", self._check_alone(one, other))
        await self._guarded("gold", self._check_gold())
        await self._guarded("close", self._check_close())

    def _fail(self, rule: str, what: str) -> None:
        # The first one of a rule: the others mostly have the same cause.
        self.violations.setdefault(rule, what)

    async def _guarded(self, rule: str, check: Awaitable[None]) -> None:
        try:
            await check
        except Exception as error:
            self._fail(rule, f"{type(error).__name__}: {error}")

    @asynccontextmanager
    async def _fresh(self) -> AsyncIterator[Env]:
        env = self.make()
        try:
            yield env
        finally:
            await self._guarded("close", self._timed(env.close()))

    async def _timed(self, awaitable: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(awaitable, self.seconds)
        except TimeoutError as error:
            raise EnvError(f"no answer within {self.seconds:g} s") from error

    def _check_tasks(self) -> None:
        env = self.make()
        found: list[Task] = []
        for split in ("train", "eval"):
            tasks = list(env.tasks(split))
            found += tasks[:2]
            ids = [task.id for task in tasks]
            if len(set(ids)) < len(ids):
                self._fail("tasks", f"split {split!r} has {len(ids) - len(set(ids))} ids twice")
            again = [task.id for task in self.make().tasks(split)]
            if ids != again:
                self._fail("tasks", f"split {split!r} of a second env has another order")
        self.tasks = tuple(found if self.given_tasks is None else self.given_tasks)
        for task in self.tasks:
            try:
                same = json.loads(json.dumps(dict(task.data))) == _listed(task.data)
            except (TypeError, ValueError) as error:
                self._fail("data", f"task {task.id!r}: {error}")
            else:
                if not same:
                    self._fail("data", f"task {task.id!r} comes back from JSON as another one")

    async def _gold(self, task: Task) -> list[tuple[str, ...]]:
        """The actions of the env's own expert, played once; none where it has none."""
        if task.id not in self.gold:
            self.gold[task.id] = []
            await self._guarded("gold", self._play_gold(task))
        return self.gold[task.id]

    async def _play_gold(self, task: Task) -> None:
        actions: list[str] = []
        async with self._fresh() as env:
            seen = [_text(await self._timed(env.reset(task, seed=self.seed)))]
            while len(actions) < self.max_turns:
                action = env.expert_action(task, seen)
                if action is None:
                    break
                actions.append(action)
                result = await self._timed(env.step(action))
                seen.append(_text(result.observation))
                if result.terminated or result.truncated:
                    break
        if actions:
            self.gold[task.id] = [tuple(actions)]

    async def _check_early_step(self) -> None:
        async with self._fresh() as env:
            if not await self._refuses(env):
                self._fail("early_step", "it returned a result")

    async def _refuses(self, env: Env) -> bool:
        """Whether a step raises."""
        try:
            await self._timed(env.step("hello"))
        except Exception:
            return True
        return False

    async def _record(self, task: Task, actions: Sequence[str]) -> _Script | None:
        """Play `actions`, then "hello" until the end, checking every result by itself."""
        where = f"task {task.id!r}"
        async with self._fresh() as env:
            try:
                first = await self._timed(env.reset(task, seed=self.seed))
            except Exception as error:
                self._fail("observation", f"{where}: reset raised {type(error).__name__}: {error}")
                return None
            self._check_observation(f"{where}, reset", first)
            if not first or first[0].role == "inline":
                self._fail("observation", f"{where}: reset starts with no message of its own")
            results: list[StepResult] = []
            played = _padded(actions, self.max_turns)
            for turn, action in enumerate(played):
                said = f"{where}, turn {turn}, action {action!r}"
                try:
                    result = await self._timed(env.step(action))
                except Exception as error:
                    self._fail("result", f"{said}: {type(error).__name__}: {error}")
                    return None
                if not isinstance(result, StepResult):
                    self._fail("result", f"{said}: got {type(result).__name__}")
                    return None
                self._check_result(said, result)
                results.append(result)
                if result.terminated or result.truncated:
                    if not await self._refuses(env):
                        self._fail("late_step", f"after {said} it returned a result")
                    break
            else:
                self._fail("ends", f"{where}: {self.max_turns} actions did not end it")
            return _Script(task, tuple(played[: len(results)]), first, tuple(results))

    def _check_observation(self, where: str, observation: object) -> None:
        if not isinstance(observation, tuple):
            self._fail("observation", f"{where}: got {type(observation).__name__}")
            return
        for message in observation:
            if not isinstance(message, Message):
                self._fail("observation", f"{where}: holds {type(message).__name__}")
            elif message.role not in _ROLES:
                self._fail("observation", f"{where}: role {message.role!r}")
            elif not all(isinstance(part, (Text, Image)) for part in message.parts):
                self._fail("observation", f"{where}: parts {message.parts!r}")

    def _check_result(self, where: str, result: StepResult) -> None:
        self._check_observation(where, result.observation)
        if result.terminated and result.truncated:
            self._fail("both", where)
        components = math.fsum(result.info.rewards.values())
        if not math.isfinite(result.reward):
            self._fail("components", f"{where}: the reward is {result.reward}")
        elif not math.isclose(result.reward, components, rel_tol=1e-9, abs_tol=1e-9):
            self._fail(
                "components",
                f"{where}: reward {result.reward}, components {dict(result.info.rewards)}",
            )

    async def _check_repeat(self, script: _Script) -> None:
        async with self._fresh() as env:
            await self._compare("repeat", env, script)
            await self._compare("fresh", env, script)
            other = self.tasks[-1] if script.task == self.tasks[0] else self.tasks[0]
            await self._timed(env.reset(other, seed=self.seed + 1))
            await self._timed(env.step("hello"))
            await self._compare("fresh", env, script)

    async def _compare(self, rule: str, env: Env, script: _Script) -> None:
        """Reset `env` and play the script, which should go as the first time."""
        first = await self._timed(env.reset(script.task, seed=self.seed))
        if first != script.first:
            self._fail(rule, f"{_where(script, 0)}, reset: {_differs(script.first, first)}")
        await self._continue(rule, env, script, 0)

    async def _continue(self, rule: str, env: Env, script: _Script, start: int) -> None:
        for turn in range(start, len(script.actions)):
            await self._step_alike(rule, env, script, turn)

    async def _check_alone(self, one: _Script, other: _Script) -> None:
        async with self._fresh() as first, self._fresh() as second:
            await self._timed(first.reset(one.task, seed=self.seed))
            await self._timed(second.reset(other.task, seed=self.seed))
            for turn in range(max(len(one.actions), len(other.actions))):
                for env, script in ((first, one), (second, other)):
                    if turn < len(script.actions):
                        await self._step_alike("alone", env, script, turn)

    async def _step_alike(self, rule: str, env: Env, script: _Script, turn: int) -> None:
        found = _plain(await self._timed(env.step(script.actions[turn])))
        expected = _plain(script.results[turn])
        if found != expected:
            self._fail(rule, f"{_where(script, turn)}: {_differs(expected, found)}")

    async def _check_fork(self, script: _Script) -> None:
        forkable = self.make().forkable
        if forkable not in get_args(Forkable):
            self._fail("fork", f"forkable = {forkable!r}, not one of {get_args(Forkable)}")
        elif forkable == "no":
            reason = "forkable = 'no'"
            self.skipped |= {"fork": reason, "leak": reason}
        else:
            last = len(script.actions) - 1
            for turn in sorted({0, (last + 1) // 2, last}):
                for order in _ORDERS:
                    await self._fork_at(script, turn, order)

    async def _fork_at(self, script: _Script, turn: int, order: str) -> None:
        """Fork before `turn`, then play the two sides on in this order."""
        async with AsyncExitStack() as stack:
            env = await stack.enter_async_context(self._fresh())
            await self._timed(env.reset(script.task, seed=self.seed))
            for action in script.actions[:turn]:
                await self._timed(env.step(action))
            twin = await self._timed(
                fork_env(
                    env,
                    make=self.make,
                    task=script.task,
                    seed=self.seed,
                    actions=script.actions[:turn],
                    observations=(
                        script.first,
                        *(one.observation for one in script.results[:turn]),
                    ),
                )
            )
            stack.push_async_callback(twin.close)
            if twin is env:
                self._fail("leak", f"{_where(script, turn)}: fork returned the env itself")
                return
            if order == "beside":
                await asyncio.gather(
                    self._guarded("leak", self._continue("leak", env, script, turn)),
                    self._guarded("leak", self._continue("leak", twin, script, turn)),
                )
                return
            leader, follower = (twin, env) if order.startswith("twin") else (env, twin)
            if order.endswith("strays"):
                await self._stray(leader)
            else:
                rule = "fork" if leader is twin else "leak"
                await self._guarded(rule, self._continue(rule, leader, script, turn))
            await self._timed(leader.close())
            # A fork that is wrong by itself shows where it goes first; what is left is a leak.
            await self._guarded("leak", self._continue("leak", follower, script, turn))

    async def _stray(self, env: Env) -> None:
        """Play actions of another mind to the end."""
        for turn in range(self.max_turns):
            result = await self._timed(env.step(JUNK[(turn + 1) % len(JUNK)]))
            if result.terminated or result.truncated:
                return

    async def _check_gold(self) -> None:
        any_gold = False
        for task in self.tasks:
            for actions in await self._gold(task):
                any_gold = True
                gold = await self._play(task, actions)
                where = f"task {task.id!r}"
                if len(gold.actions) > len(actions) or not gold.results[-1].terminated:
                    self._fail("gold", f"{where}: after {len(actions)} gold actions it goes on")
                    continue
                spoiled = [(*gold.actions[:-1], spoil(gold.actions[-1])), ("hello",)]
                for others in spoiled:
                    wrong = await self._play(task, others)
                    if wrong.episode_return >= gold.episode_return:
                        self._fail(
                            "gold",
                            f"{where}: {list(others)} earns {wrong.episode_return:g}, the gold "
                            f"actions {gold.episode_return:g}",
                        )
        if not any_gold:
            self.skipped["gold"] = "the env has no gold actions"

    async def _play(self, task: Task, actions: Sequence[str]) -> _Script:
        results: list[StepResult] = []
        played = _padded(actions, self.max_turns)
        async with self._fresh() as env:
            first = await self._timed(env.reset(task, seed=self.seed))
            for action in played:
                results.append(await self._timed(env.step(action)))
                if results[-1].terminated or results[-1].truncated:
                    break
        return _Script(task, tuple(played[: len(results)]), first, tuple(results))

    async def _check_close(self) -> None:
        unused, used = self.make(), self.make()
        await self._timed(used.reset(self.tasks[0], seed=self.seed))
        for env in (unused, used):
            await self._timed(env.close())
            await self._timed(env.close())


def _text(observation: Observation) -> str:
    return "\n".join(message.text for message in observation)


def _padded(actions: Sequence[str], length: int) -> list[str]:
    """`actions`, then "hello" until there are `length` of them."""
    return [*actions[:length], *["hello"] * (length - len(actions))]


def _plain(result: StepResult) -> tuple[object, ...]:
    """All of a result that must repeat itself: no durations and no metrics."""
    info = result.info
    calls = tuple((one.name, dict(one.arguments), one.ok) for one in info.tool_calls)
    return (
        result.observation,
        result.reward,
        result.terminated,
        result.truncated,
        dict(info.rewards),
        info.malformed_calls,
        info.state_key,
        calls,
    )


def _where(script: _Script, turn: int) -> str:
    return f"task {script.task.id!r}, turn {turn}, action {script.actions[turn]!r}"


def _differs(expected: object, found: object) -> str:
    return f"first {_short(expected)}, then {_short(found)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "..."


def _listed(value: object) -> object:
    """`value` with tuples as lists, as JSON gives them back."""
    if isinstance(value, (list, tuple)):
        return [_listed(one) for one in value]
    if hasattr(value, "items"):
        return {key: _listed(one) for key, one in value.items()}
    return value

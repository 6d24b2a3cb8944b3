"""The desktop environment: a task on a screen, mouse and keyboard, and a score at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

from agentrl.core.computer import ComputerAction
from agentrl.core.env import Env, Forkable, Observation, StepInfo, StepResult, history_key
from agentrl.core.errors import EnvError, RecipeError, ToolError
from agentrl.core.types import Image, Message, Task, Text, ToolRecord

from .actions import VOCABULARIES, ToolCalls, Vocabulary, VocabularyName
from .confinement import DesktopSettings
from .evaluation import evaluate
from .events import Point, events_of
from .pool import DesktopPool, PoolSettings, shared_pool
from .screen import Screen, elements_of, find_element
from .session import Desktop
from .sources import Sources
from .steps import Stage, do_steps
from .tasks import BUILT_IN, Refused, Suite, read_suite

View: TypeAlias = Literal["accessibility", "windows", "screenshot"]

QUIET = 0.1
"""Seconds without a change after which a screen is taken to be settled."""

STILL = 0.5
"""The same before a desktop is judged in the turn of an action."""


class DesktopEnv(Env):
    """A task on an X desktop of its own, with real applications.

    Observation: the instruction; then, after each action, what `observe` names: the windows and
    the accessibility tree as text, the screen as PNG. Mistakes in an action are told instead.
    Action: OSWorld's `computer_13` as JSON, pyautogui calls as text, or tool calls (`actions`);
    several may come in one turn. In the first and the last an accessibility tree's element can
    stand for a point.
    Reward: `success`, the evaluator's score in [0, 1], at the end; 0.0 before.
    Ends: terminated by DONE or FAIL; truncated after `max_turns` actions, where the desktop is
    judged as it stands.
    Data: tasks of our own over mousepad, galculator, pcmanfm, lxterminal and Chromium; with `train`
    and `eval`, files of OSWorld's rows (Apache-2.0, arXiv:2404.07972), of which those that cannot
    run here are left out (`refused` says which and why).

    What does not count: how the score was reached, and what is left open. Files that a task brings
    come from `files` (a folder, for `file:` addresses) or, with `downloads`, by HTTP through the
    worker; a desktop itself has no network. At most `desktops` of a process live at once, and
    `prepared` of them stand ready for a reset. An episode repeats itself as far as its applications
    do: what they show of clocks and of free space is theirs.
    """

    forkable: ClassVar[Forkable] = "replay"

    def __init__(
        self,
        *,
        observe: tuple[View, ...] = ("windows", "accessibility"),
        actions: VocabularyName = "computer_13",
        max_turns: int = 15,
        train: str | None = None,
        eval: str | None = None,
        files: str | None = None,
        downloads: bool = False,
        desktop: DesktopSettings = DesktopSettings(),  # noqa: B008 (frozen)
        desktops: int = 16,
        prepared: int = 0,
        max_elements: int = 400,
        settle_seconds: float = 5.0,
        reset_seconds: float = 90.0,
    ) -> None:
        if not observe:
            raise RecipeError(
                "DesktopEnv needs something to observe: accessibility, windows or screenshot"
            )
        if max_turns < 1 or desktops < 1 or not 0 <= prepared <= desktops:
            raise RecipeError(
                "DesktopEnv needs max_turns >= 1, desktops >= 1 and 0 <= prepared <= desktops, got "
                f"{max_turns}, {desktops} and {prepared}"
            )
        self.observe = observe
        self.actions: VocabularyName = actions
        self.max_turns = max_turns
        self._suites = {"train": train, "eval": eval}
        self._sources = Sources(files, downloads)
        self._pool_settings = PoolSettings(desktop, desktops, prepared)
        self._max_elements = max_elements
        self._settle_seconds = settle_seconds
        self._reset_seconds = reset_seconds
        self._pool: DesktopPool | None = None
        self._desktop: Desktop | None = None
        self._task: Task | None = None
        self._screen = Screen()
        self._over = False
        self._turn = 0
        self._state_key = ""
        self._read_suites: dict[str, Suite] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of `split` that run here; split "all" has those of our own, both splits'."""
        return self._suite(split).tasks

    def refused(self, split: str) -> Sequence[Refused]:
        """The tasks of `split` that do not, each with the reasons."""
        return self._suite(split).refused

    def _suite(self, split: str) -> Suite:
        whole = split == "all" and not any(self._suites.values())
        if split not in self._suites and not whole:
            return Suite((), ())
        if split not in self._read_suites:
            given = self._suites.get(split)
            self._read_suites[split] = (
                read_suite(BUILT_IN, sources=self._sources, split=None if whole else split)
                if given is None
                else read_suite(given, sources=self._sources)
            )
        return self._read_suites[split]

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return VOCABULARIES[self.actions]()

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """The actions as tools where they are written as tool calls."""
        return self._vocabulary.schemas if isinstance(self._vocabulary, ToolCalls) else ()

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The next turn of the task's solution, its elements looked up in the last observation."""
        solution = task.data.get("solution", ())
        turn = len(seen) - 1
        if turn >= len(solution):
            return None
        steps = [self._solved(step, seen[-1]) for step in solution[turn]]
        written = [self._vocabulary.write(step) for step in steps if step is not None]
        return "\n".join(written) if len(written) == len(steps) else None

    def _solved(self, step: Mapping[str, Any], seen: str) -> ComputerAction | None:
        """A step of a solution as an action, or None where its element is not to be seen."""
        given = {key: value for key, value in step.items() if key != "action_type"}
        if isinstance(given.get("element"), str):
            role, _, name = given.pop("element").partition("=")
            found = find_element(seen, role, name)
            if found is None:
                return None
            if self.actions == "pyautogui":
                given |= {"x": found.x, "y": found.y}
            else:
                given["element"] = found.number
        return ComputerAction(step["action_type"], given)

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start a desktop, set the task up and show it. The seed changes nothing."""
        await self.close()
        self._over, self._turn = False, 0
        self._pool = shared_pool(self._pool_settings)
        try:
            async with asyncio.timeout(self._pool.settings.wait_seconds + self._reset_seconds):
                self._desktop = await self._pool.acquire()
                self._stage = Stage(self._desktop, self._sources, {}, strict=True)
                await do_steps(task.data["config"], self._stage)
                await self._look()
        except TimeoutError as error:
            await self.close()
            raise EnvError(
                f"task {task.id!r} was not set up within {self._reset_seconds:g} s"
            ) from error
        except BaseException:
            await self.close()
            raise
        self._task = task
        instructions = self._vocabulary.instructions(elements="accessibility" in self.observe)
        head = f"Task: {task.data['instruction']}\n\n{instructions}\n\n"
        observation = (self._message("user", head),)
        self._state_key = history_key(task.id, observation[0].text)
        return observation

    async def step(self, action: str) -> StepResult:
        """Do the actions of a turn, or tell what is wrong with them."""
        if self._task is None or self._desktop is None:
            raise EnvError("DesktopEnv.step was called before reset")
        if self._over:
            raise EnvError("DesktopEnv.step was called after the end of the episode")
        self._turn += 1
        records: list[ToolRecord] = []
        mistake, ending = "", ""
        clock = asyncio.get_running_loop().time
        try:
            for one in self._vocabulary.read(action):
                if one.type in ("DONE", "FAIL"):
                    ending = one.type
                    break
                began = clock()
                try:
                    await self._perform(one)
                except ToolError:
                    records.append(_record(one, ok=False, seconds=clock() - began))
                    raise
                records.append(_record(one, ok=True, seconds=clock() - began))
        except ToolError as error:
            mistake = str(error)
        over = bool(ending) or self._turn >= self.max_turns
        rewards: Mapping[str, float] = {}
        observation: Observation = ()
        if over:
            if records:
                # What an action set going, such as the move of a file, may start after a moment.
                await self._desktop.request("settle", quiet=STILL, limit=self._settle_seconds)
            rewards = {"success": await self._judged(self._task, failed=ending == "FAIL")}
            self._over = True
        else:
            observation = await self._shown(mistake, acted=bool(records))
        self._state_key = history_key(self._state_key, action, *(one.text for one in observation))
        info = StepInfo(
            rewards=rewards,
            tool_calls=tuple(records),
            malformed_calls=int(bool(mistake)),
            state_key=self._state_key,
        )
        reward = rewards.get("success", 0.0)
        return StepResult(observation, reward, bool(ending), over and not ending, info)

    async def close(self) -> None:
        """End the desktop; may be called twice."""
        desktop, self._desktop = self._desktop, None
        self._task = None
        if desktop is not None and self._pool is not None:
            await self._pool.release(desktop)

    async def _perform(self, action: ComputerAction) -> None:
        """Do one action, and wait until the desktop is quiet."""
        assert self._desktop is not None
        if action.type == "WAIT":
            await asyncio.sleep(action.parameters.get("seconds", 1.0))
            return
        events = events_of(action, self._point(action))
        done = await self._desktop.request("play", events=events)
        if "unknown_key" in done:
            raise ToolError(f"{action.type}: no key is named {done['unknown_key']!r}.")
        await self._desktop.request("settle", quiet=QUIET / 2, limit=self._settle_seconds)

    def _point(self, action: ComputerAction) -> Point | None:
        """Where an action is done, inside of the screen."""
        given = action.parameters
        settings = self._pool_settings.desktop
        if "element" in given:
            for one in self._screen.elements:
                if one.number == given["element"]:
                    return Point(one.x, one.y)
            raise ToolError(
                f"{action.type}: there is no element {given['element']} in the last accessibility "
                f"tree, which has {len(self._screen.elements)}."
            )
        if "x" not in given:
            return None
        if given["x"] >= settings.width or given["y"] >= settings.height:
            raise ToolError(
                f"{action.type}: ({given['x']}, {given['y']}) is outside of the screen of "
                f"{settings.width} by {settings.height} pixels."
            )
        return Point(given["x"], given["y"])

    async def _look(self) -> None:
        """Read the screen once it has settled."""
        assert self._desktop is not None
        tree = "accessibility" in self.observe
        found = await self._desktop.request(
            "observe",
            windows="windows" in self.observe,
            tree=tree,
            screenshot="screenshot" in self.observe,
            quiet=QUIET,
            limit=self._settle_seconds,
            max_nodes=self._max_elements * 4,
        )
        settings = self._pool_settings.desktop
        nodes = found.get("nodes", ())
        elements = elements_of(nodes, width=settings.width, height=settings.height)
        whole = found.get("whole", True) and len(elements) <= self._max_elements
        self._screen = Screen(
            tuple(found["windows"]),
            tuple(elements[: self._max_elements]),
            whole,
            found.get("payload", b""),
        )

    async def _shown(self, mistake: str, *, acted: bool) -> Observation:
        """The screen after what was done, with the mistake that stopped it, if any."""
        role = "tool" if self.actions == "tools" else "user"
        if mistake and not acted:
            # Nothing was done, so the screen is as it was told.
            return (Message.of(role, f"error: {mistake}"),)
        await self._look()
        return (self._message(role, f"error: {mistake}\n\n" if mistake else ""),)

    def _message(self, role: str, head: str) -> Message:
        text = self._screen.text(
            windows="windows" in self.observe, elements="accessibility" in self.observe
        )
        parts: list[Text | Image] = [Text(head + text)]
        if "screenshot" in self.observe:
            parts.append(Image("image/png", self._screen.png))
        return Message(role, tuple(parts))

    async def _judged(self, task: Task, *, failed: bool) -> float:
        await self._stage.desktop.request("settle", quiet=2 * QUIET, limit=self._settle_seconds)
        stage = self._stage._replace(strict=False)
        return await evaluate(task.data["evaluator"], stage, failed=failed)


def _record(action: ComputerAction, *, ok: bool, seconds: float) -> ToolRecord:
    return ToolRecord(action.type.lower(), action.parameters, ok, seconds)

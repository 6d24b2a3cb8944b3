"""MiniWoB++ as an environment: a small web page, a task in words, mouse and keyboard."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import weakref
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import EnvError, RecipeError, SetupError, nearest
from agentrl.core.types import Image, Message, Task, Text

from .actions import INSTRUCTIONS, Action, MalformedError, parse
from .browser import BrowserPool, BrowserSettings, shared_pool
from .catalogue import DEFAULT_PAGES, PAGES
from .experts import act
from .page import Look, RefusedError, Session
from .view import TASK, Position, page_text

T = TypeVar("T")

ObservationKind: TypeAlias = Literal["dom", "screenshot", "both"]
RewardKind: TypeAlias = Literal["raw", "time_scaled", "binary"]

FIRST_TRAIN_SEED = 1_000_000
"""Evaluation's problems have the seeds from 0 on, training's those from here on."""

TIMED_OUT = "timed out"
"""What a page says when its own time limit ended the episode."""

_PICTURE_TOLD = "The page is in the picture, 160 pixels wide and 210 high."


class _Shown(NamedTuple):
    """What a turn showed: the page, its text and its picture as far as they are observed."""

    look: Look
    text: str
    picture: bytes


class MiniWobEnv(Env):
    """A small web page on which a task is to be done with mouse and keyboard.

    Observation: the task in words; then after each action the page: its elements as lines with
        references (`dom`), the 160 x 210 pixels of its task area as PNG (`screenshot`), or both.
    Action: one call such as `click(3)` (`actions.INSTRUCTIONS`), after a thought if one is wanted.
        What is none, or cannot be done, is answered with `error: ...` and costs a turn.
    Reward: `solved`, when the page ends the episode: its raw reward clipped to [0, 1] (`raw`), the
        one that shrinks with the page's time (`time_scaled`), or 1.0 where raw is 1 (`binary`).
    Ends: terminated when the page says so, right or wrong; truncated after `max_turns` actions or
        by the page's own time limit, of which each action takes `seconds_per_turn`. The time that
        a policy thinks does not count.
    Data: the pages of MiniWoB++ (MIT) from the package miniwob. A task is a page and the number
        that its random numbers start from; those of training and evaluation differ.
    """

    forkable = "replay"

    def __init__(
        self,
        *,
        pages: Sequence[str] = DEFAULT_PAGES,
        train_seeds: int = 50,
        eval_seeds: int = 10,
        observation: ObservationKind = "dom",
        position: Position = "center",
        reward: RewardKind = "raw",
        max_turns: int = 20,
        seconds_per_turn: float = 0.5,
        deadline_seconds: float = 30.0,
        executable: str | None = None,
        max_pages: int = 32,
        browser_episodes: int = 2000,
        browser_memory_mb: int = 4096,
    ) -> None:
        for page in pages:
            if page not in PAGES:
                raise RecipeError(
                    f"miniwob: pages: there is no page {page!r}.{nearest(page, PAGES)} "
                    f"MiniWoB++ has {len(PAGES)}; docs/envs/miniwob.md names those used by default"
                )
        _at_least(1, pages=len(pages), max_turns=max_turns, max_pages=max_pages)
        _at_least(0, train_seeds=train_seeds, eval_seeds=eval_seeds)
        if eval_seeds > FIRST_TRAIN_SEED:
            raise RecipeError(f"miniwob: eval_seeds: at most {FIRST_TRAIN_SEED}, got {eval_seeds}")
        if not (seconds_per_turn > 0 and deadline_seconds > 0):
            raise RecipeError(
                "miniwob: seconds_per_turn and deadline_seconds must be above 0, got "
                f"{seconds_per_turn:g} and {deadline_seconds:g}"
            )
        self.pages = tuple(pages)
        self.train_seeds, self.eval_seeds = train_seeds, eval_seeds
        self.observation: ObservationKind = observation
        self.position: Position = position
        self.reward: RewardKind = reward
        self.max_turns = max_turns
        self.seconds_per_turn = seconds_per_turn
        self.deadline_seconds = deadline_seconds
        self.browser = BrowserSettings(
            executable=executable,
            max_pages=max_pages,
            episodes=browser_episodes,
            memory_mb=browser_memory_mb,
        )
        self._session: Session | None = None
        self._abandoned: weakref.finalize[..., MiniWobEnv] | None = None
        self._turn = 0
        self._state_key = ""

    def tasks(self, split: str) -> Sequence[Task]:
        """Every page with the first number of the split, then every page with the next."""
        first = FIRST_TRAIN_SEED if split == "train" else 0
        count = {"train": self.train_seeds, "eval": self.eval_seeds}.get(split, 0)
        return [
            Task(f"{page}/{seed}", {"page": page, "seed": seed})
            for seed in range(first, first + count)
            for page in self.pages
        ]

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The next action of the page's expert, which reads what a policy with text reads."""
        return act(str(task.data["page"]), seen) if self.observation != "screenshot" else None

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Load the task's page anew; the episode's own `seed` changes nothing."""
        await self._end(healthy=True)
        address = _address(str(task.data["page"]))
        pool = shared_pool(self.browser)
        session = Session(pool)
        self._session, self._turn = session, 0
        # An env that nobody closes gives its page back, too.
        self._abandoned = weakref.finalize(self, pool.post, functools.partial(_give_back, session))
        self._abandoned.atexit = False

        async def start() -> tuple[str, _Shown]:
            utterance = await session.open(
                address, int(task.data["seed"]), seconds=self.deadline_seconds
            )
            return utterance, await self._look(session)

        # Waiting for a page and playing on it have their deadline each.
        utterance, shown = await self._guarded(pool, start(), seconds=2 * self.deadline_seconds)
        text = f"{INSTRUCTIONS}\n\n{TASK}{utterance}\n\n{shown.text or _PICTURE_TOLD}"
        return (_message(text, shown.picture),)

    async def step(self, action: str) -> StepResult:
        """Play one action."""
        session = self._session
        if session is None:
            raise EnvError("MiniWobEnv.step was called before reset or after the end")
        self._turn += 1
        try:
            parsed = parse(action)
        except MalformedError as error:
            return await self._told(str(error), malformed=True)
        pool = shared_pool(self.browser)
        try:
            shown = await self._guarded(
                pool, self._play(session, parsed), seconds=self.deadline_seconds
            )
        except RefusedError as error:
            return await self._told(str(error), malformed=False)
        if shown.look.ending is not None:
            return await self._ended(shown.look)
        if self._turn >= self.max_turns:
            return await self._truncated()
        observation = (_message(shown.text or _PICTURE_TOLD, shown.picture),)
        return StepResult(observation, 0.0, False, False, self._info())

    async def close(self) -> None:
        """Give the page back."""
        await self._end(healthy=True)

    async def _play(self, session: Session, action: Action) -> _Shown:
        await session.act(action, turn_ms=round(1000 * self.seconds_per_turn))
        return await self._look(session)

    async def _look(self, session: Session) -> _Shown:
        look = await session.look()
        if look.ending is not None:
            return _Shown(look, "", b"")
        text = "" if self.observation == "screenshot" else page_text(look.nodes, self.position)
        picture = b"" if self.observation == "dom" else await session.picture()
        self._state_key = hashlib.sha256(text.encode() + picture).hexdigest()[:16]
        return _Shown(look, text, picture)

    async def _guarded(
        self, pool: BrowserPool, work: Coroutine[object, object, T], *, seconds: float
    ) -> T:
        """`work` in the pool's thread; whatever breaks it off, the page is not used again."""
        try:
            return await pool.run(work, seconds=seconds)
        except RefusedError:
            raise
        except BaseException:
            await self._end(healthy=False)
            raise

    async def _told(self, error: str, *, malformed: bool) -> StepResult:
        """An action that did nothing."""
        if self._turn >= self.max_turns:
            return await self._truncated(malformed_calls=int(malformed))
        observation = (Message.of("user", f"error: {error}"),)
        return StepResult(
            observation, 0.0, False, False, self._info(malformed_calls=int(malformed))
        )

    async def _truncated(self, *, malformed_calls: int = 0) -> StepResult:
        await self._end(healthy=True)
        return StepResult((), 0.0, False, True, self._info(malformed_calls=malformed_calls))

    async def _ended(self, look: Look) -> StepResult:
        await self._end(healthy=True)
        ending = look.ending
        assert ending is not None
        value = ending.scaled if self.reward == "time_scaled" else ending.raw
        success = float(ending.raw == 1.0)
        solved = success if self.reward == "binary" else min(1.0, max(0.0, value))
        timed_out = ending.reason == TIMED_OUT
        metrics = {"success": success, "page_seconds": look.milliseconds / 1000}
        info = StepInfo(rewards={"solved": solved}, state_key="", metrics=metrics)
        return StepResult((), solved, not timed_out, timed_out, info)

    def _info(self, *, malformed_calls: int = 0) -> StepInfo:
        return StepInfo(
            rewards={"solved": 0.0}, malformed_calls=malformed_calls, state_key=self._state_key
        )

    async def _end(self, *, healthy: bool) -> None:
        session, self._session = self._session, None
        if self._abandoned is not None:
            self._abandoned.detach()
        if session is not None:
            pool = shared_pool(self.browser)
            await pool.run(session.end(healthy=healthy), seconds=self.deadline_seconds)


async def _give_back(session: Session) -> None:
    await session.end(healthy=True)


def _message(text: str, picture: bytes) -> Message:
    if not picture:
        return Message.of("user", text)
    return Message("user", (Text(text), Image("image/png", picture)))


def _at_least(least: int, **settings: int) -> None:
    for name, value in settings.items():
        if value < least:
            raise RecipeError(f"miniwob: {name}: at least {least}, got {value}")


@functools.cache
def _folder() -> Path:
    # The package itself imports gymnasium and selenium; only its pages are wanted.
    found = importlib.util.find_spec("miniwob")
    folder = Path(found.origin or "").parent / "html" / "miniwob" if found else None
    if folder is None or not folder.is_dir():
        raise SetupError(
            "the pages of MiniWoB++ come with the package miniwob, which is not installed: "
            'pip install "agentrl[miniwob]" && apt-get install chromium'
        )
    return folder


def _address(page: str) -> str:
    path = _folder() / f"{page}.html"
    if page not in PAGES or not path.is_file():
        raise EnvError(f"the package miniwob has no page {page!r} ({path})")
    return path.as_uri()

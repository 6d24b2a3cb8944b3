"""What all text games share: how an action is written, turns, state keys, forks, demonstrations."""

from __future__ import annotations

import copy
import hashlib
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self, TypeAlias

from agentrl.core.env import ROOT_STATE, Demonstration, Env, Forkable, StepInfo, StepResult
from agentrl.core.env import Observation as Messages
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Message, Task

Tag: TypeAlias = Literal["answer", "action", "none"]

SEPARATOR = " || "
"""Between the moves of one action, as in RAGEN."""


class Written(NamedTuple):
    """What an action's text holds: a command, or the mistake in it, worded for the policy."""

    command: str = ""
    mistake: str = ""


class Played(NamedTuple):
    """What a command did. `valid` is False where the game did not understand or allow it."""

    text: str
    rewards: Mapping[str, float] = {}
    ended: bool = False
    valid: bool = True


def read_action(text: str, tag: Tag) -> Written:
    """The command inside the one `<tag>` of `text`, thoughts left out; never raises.

    With `tag="none"` all of the text after a closed `<think>` is the command.
    """
    rest = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else text
    if "<think>" in rest:
        return Written(mistake="<think> is not closed: end it with </think>.")
    if tag == "none":
        return Written(rest.strip()) if rest.strip() else Written(mistake="the action is empty.")
    before, opening, inside = rest.partition(f"<{tag}>")
    body, closing, after = inside.partition(f"</{tag}>")
    if not opening or not closing or f"</{tag}>" in before:
        return Written(mistake=f"there is no action: write it as <{tag}>...</{tag}>.")
    if f"<{tag}>" in inside:
        return Written(mistake=f"there are several <{tag}> in one action: write one.")
    if after.strip():
        return Written(mistake=f"there is text after </{tag}>: stop there.")
    if not body.strip():
        return Written(mistake=f"<{tag}> is empty.")
    return Written(body.strip())


class TextGame(Env):
    """A game in text whose state is a few plain values: subclasses say which and how it goes on.

    An action is a command inside `<answer>` (`tag="action"`: inside `<action>`; `"none"`: plain),
    after thoughts inside `<think>`. One that is not understood, or that the game refuses, changes
    nothing but uses up a turn, earns `invalid_reward` (component `invalid`) and is counted in
    `StepInfo.malformed_calls`.

    State keys are equal exactly for equal game states; turns used are no part of a state. The
    state that `reset` leaves has the key `ROOT_STATE`.

    Forks by a shallow copy: a subclass replaces its state and never changes it in place.
    """

    forkable: ClassVar[Forkable] = "copy"

    def __init__(self, *, max_turns: int, tag: Tag = "answer", invalid_reward: float = 0.0) -> None:
        name = type(self).__name__
        if max_turns < 1:
            raise RecipeError(f"{name} needs max_turns >= 1, got {max_turns}")
        if not math.isfinite(invalid_reward) or invalid_reward > 0:
            raise RecipeError(f"{name} needs invalid_reward <= 0, got {invalid_reward}")
        self.max_turns = max_turns
        self.tag: Tag = tag
        self.invalid_reward = invalid_reward
        self._task: Task | None = None
        self._over = False
        self._turn = 0
        self._invalid = 0
        self._root = ""

    @abstractmethod
    def begin(self, task: Task, *, seed: int) -> str:
        """Set the game up and return its first text: the rules and the state."""

    @abstractmethod
    def play(self, command: str) -> Played:
        """Carry out a command; one that is not valid changes nothing."""

    @abstractmethod
    def state(self) -> str:
        """All of the game's state but the number of turns, in one text."""

    def out_of_time(self) -> bool:
        """Whether a limit of the game's own is reached; the limit of turns is checked anyway."""
        return False

    def metrics(self) -> Mapping[str, float]:
        """Numbers to log at the end of an episode."""
        return {}

    @property
    def stop(self) -> tuple[str, ...]:
        """The closing tag of an action; none without tags."""
        return () if self.tag == "none" else (f"</{self.tag}>",)

    @property
    def turn(self) -> int:
        """Actions played so far in this episode."""
        return self._turn

    def written(self, command: str) -> str:
        """The action that holds `command`, as a gold action writes it."""
        return command if self.tag == "none" else f"<{self.tag}>{command}</{self.tag}>"

    async def reset(self, task: Task, *, seed: int) -> Messages:
        """Start an episode of `task`."""
        return self._reset(task, seed)

    async def step(self, action: str) -> StepResult:
        """Play one command."""
        return self._step(action)

    async def fork(self) -> Self:
        """A copy of this game at this turn."""
        return copy.copy(self)

    def demonstrations(self, *, seed: int) -> Iterator[Demonstration]:
        """Episodes of gold actions on training tasks in random order, again and again."""
        rng = random.Random(seed)
        tasks = list(self.tasks("train"))
        player, shown = copy.copy(self), True
        while shown:
            shown = False
            rng.shuffle(tasks)
            for task in tasks:
                found = player._demonstrated(task, rng.randrange(2**31))
                if found is not None:
                    shown = True
                    yield found

    def _demonstrated(self, task: Task, seed: int) -> Demonstration | None:
        """An episode of the expert; None where it does not reach an end."""
        return self._recorded(task, seed, lambda seen: self.expert_action(task, seen))

    def _recorded(
        self, task: Task, seed: int, act: Callable[[Sequence[str]], str | None]
    ) -> Demonstration | None:
        """An episode of `act`, which is told the texts so far; None where it does not end."""
        prompt = self._reset(task, seed)
        seen = [prompt[0].text]
        turns: list[tuple[str, Messages]] = []
        while not self._over:
            action = act(seen)
            if action is None:
                return None
            result = self._step(action)
            # What is told after the end is in no context.
            turns.append((action, () if self._over else result.observation))
            seen.append(result.observation[0].text)
            if result.truncated:
                return None
        return Demonstration(prompt, tuple(turns))

    def _reset(self, task: Task, seed: int) -> Messages:
        self._task, self._over = None, False
        self._turn = self._invalid = 0
        text = self.begin(task, seed=seed)
        self._root = self.state()
        self._task = task
        return (Message.of("user", text),)

    def _step(self, action: str) -> StepResult:
        if self._task is None or self._over:
            when = "before reset" if self._task is None else "after the end of the episode"
            raise EnvError(f"{type(self).__name__}.step was called {when}")
        written = read_action(action, self.tag)
        played = (
            Played(f"Not a valid action: {written.mistake}", valid=False)
            if written.mistake
            else self.play(written.command)
        )
        self._turn += 1
        rewards = dict(played.rewards)
        if not played.valid:
            self._invalid += 1
            if self.invalid_reward:
                rewards["invalid"] = self.invalid_reward
        truncated = not played.ended and (self._turn >= self.max_turns or self.out_of_time())
        self._over = played.ended or truncated
        metrics = {**self.metrics(), "invalid_actions": float(self._invalid)} if self._over else {}
        info = StepInfo(
            rewards=rewards,
            malformed_calls=int(not played.valid),
            state_key=self._key(),
            metrics=metrics,
        )
        observation = (Message.of("user", played.text),)
        total = math.fsum(rewards.values())
        return StepResult(observation, total, played.ended, truncated, info)

    def _key(self) -> str:
        state = self.state()
        if state == self._root:
            return ROOT_STATE
        return hashlib.blake2b(state.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class MoveGame(TextGame):
    """A text game on a grid: an action names one of `moves`, or several with `||` between them.

    Letter case does not matter. A text with an unknown move, or with more than
    `actions_per_turn`, is not valid, and none of its moves is made.
    """

    moves: ClassVar[tuple[str, ...]]

    def __init__(
        self, *, actions_per_turn: int, max_turns: int, tag: Tag, invalid_reward: float
    ) -> None:
        super().__init__(max_turns=max_turns, tag=tag, invalid_reward=invalid_reward)
        if actions_per_turn < 1:
            raise RecipeError(
                f"{type(self).__name__} needs actions_per_turn >= 1, got {actions_per_turn}"
            )
        self.actions_per_turn = actions_per_turn

    @abstractmethod
    def move(self, name: str) -> tuple[Mapping[str, float], bool]:
        """Make one of `moves`; returns its reward components and whether the game is over."""

    @abstractmethod
    def shown(self) -> str:
        """The grid as the policy sees it, and how the game ended where it did."""

    def play(self, command: str) -> Played:
        """Make the named moves in order, until the game is over."""
        known = {name.lower(): name for name in self.moves}
        names = [one.strip().lower() for one in command.split("||")]
        if not all(name in known for name in names):
            return Played(f"Not a valid action: write {self.how()}.", valid=False)
        if len(names) > self.actions_per_turn:
            return Played(
                f"Not a valid action: {len(names)} moves, but at most {self.actions_per_turn} may "
                "be made in a turn.",
                valid=False,
            )
        rewards: dict[str, float] = {}
        ended = False
        for name in names:
            parts, ended = self.move(known[name])
            for part, value in parts.items():
                rewards[part] = rewards.get(part, 0.0) + value
            if ended or self.out_of_time():
                break
        return Played(self.shown(), rewards, ended)

    def how(self) -> str:
        """How an action is written, for the rules and for mistakes."""
        first, second, *_ = self.moves
        if self.actions_per_turn == 1:
            others = f"{', '.join(self.moves[1:-1])} or {self.moves[-1]}"
            return f"{self.written(first)}, where {first} may also be {others}"
        listed = f"{', '.join(self.moves[:-1])} and {self.moves[-1]}"
        example = self.written(SEPARATOR.join((first, second)))
        return f"{example}, with up to {self.actions_per_turn} of {listed}"

    def gold_chunk(self, names: Sequence[str], turn: int) -> str | None:
        """The action of `turn` (0-based) when `names` are played as many at a time as may be."""
        first = turn * self.actions_per_turn
        chunk = names[first : first + self.actions_per_turn]
        return self.written(SEPARATOR.join(chunk)) if chunk else None


def chosen_split(text: str, *, eval_share: int = 5) -> str:
    """The split that a generated task belongs to by its content: one in `eval_share` is "eval".

    So splits are disjoint by construction, however many tasks either of them has.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest, "little") % eval_share == 0 else "train"

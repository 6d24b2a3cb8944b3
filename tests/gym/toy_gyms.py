"""Gymnasium environments of somebody else, for the tests of the adapter."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces


class Corridor(gymnasium.Env[int, int]):
    """Walk right from a start that the seed decides; +1 at the end of five rooms."""

    observation_space = spaces.Discrete(6)
    action_space = spaces.Discrete(2)
    threads: ClassVar[set[int]] = set()

    def __init__(self, slippery: bool = False) -> None:
        self.slippery = slippery
        self.place = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.threads.add(threading.get_ident())
        self.place = int(self.np_random.integers(3))
        return self.place, {}

    def step(self, action: int):
        self.threads.add(threading.get_ident())
        slips = self.slippery and self.np_random.random() < 0.3
        self.place = max(0, self.place + (1 if action == 1 and not slips else -1))
        return self.place, float(self.place == 5), self.place == 5, False, {}


class Parrot(gymnasium.Env[str, str]):
    """Repeats lower-case words; ends with "bye"; stumbles over "crash"."""

    observation_space = spaces.Text(100)
    action_space = spaces.Text(20, charset="abcdefghijklmnopqrstuvwxyz")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return "hello", {}

    def step(self, action: str):
        if action == "crash":
            raise RuntimeError("the parrot fell off")
        # Both at once, as some environments do.
        return action, 1.0, action == "bye", action == "bye", {}


class Box(gymnasium.Env[Any, Any]):
    """Continuous actions: nothing for text."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Box(-1, 1, (2,))


def describe(place: int) -> str:
    """The room in words."""
    return f"You are in room {place}."


for _name, _class in (("Corridor", Corridor), ("Parrot", Parrot), ("Box", Box)):
    if f"toy/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"toy/{_name}-v0", entry_point=_class)

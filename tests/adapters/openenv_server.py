"""An OpenEnv server, written with its public API: say a number in words, one turn at a time."""

from __future__ import annotations

import sys

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app

WORDS = ("zero", "one", "two", "three", "four", "five")


class WordAction(Action):
    word: str
    volume: int = 1


class WordObservation(Observation):
    number: int
    said: str


class WordEnvironment(Environment):
    """Shows a number; the word for it earns 1.0 and ends, any other is told and goes on."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State()
        self._number = 0

    def reset(self, seed: int | None = None, episode_id: str | None = None, **more: object):
        self._state = State(episode_id=episode_id, step_count=0)
        self._number = (seed or 0) % len(WORDS)
        return WordObservation(number=self._number, said=str(more.get("greeting", "hello")))

    def step(self, action: WordAction, timeout_s: float | None = None, **more: object):
        if action.word == "crash":
            raise RuntimeError("the parrot flew away")
        self._state.step_count += 1
        right = action.word.strip().lower() == WORDS[self._number]
        share = sum(letter in "aeiou" for letter in action.word) / max(1, len(action.word))
        reward = 1.0 if right else 0.1 * share
        return WordObservation(
            number=self._number, said=f"{action.word}!" * action.volume, reward=reward, done=right
        )

    @property
    def state(self) -> State:
        return self._state


if __name__ == "__main__":
    app = create_app(
        WordEnvironment, WordAction, WordObservation, max_concurrent_envs=int(sys.argv[2])
    )
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")

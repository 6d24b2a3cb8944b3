"""Our environments as Gymnasium ones: text in, text out, synchronous."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces

from agentrl.core.env import Env, Observation
from agentrl.core.errors import EnvError, RecipeError, nearest
from agentrl.core.registry import env_ids, make_env
from agentrl.core.types import Task
from agentrl.gym.thread import LoopThread

NAMESPACE = "agentrl"
MAX_CHARS = 1_000_000
"""Longest text of the spaces, in characters."""

_SAMPLE_CHARS = 64


class AnyText(spaces.Text):
    """Any string of at most `max_length` characters; samples are short and of printable ASCII."""

    def __init__(self, max_length: int = MAX_CHARS) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A random string of 1 to 64 characters."""
        if mask is None and probability is None:
            mask = (int(self.np_random.integers(1, _SAMPLE_CHARS + 1)), None)
        return super().sample(mask, probability)

    def contains(self, x: object) -> bool:
        """Whether `x` is a string that is not too long, whatever its characters."""
        return isinstance(x, str) and len(x) <= self.max_length


class GymnasiumEnv(gymnasium.Env[str, str]):
    """One of our environments, by id or as an object, behind Gymnasium's interface.

    Observation: the messages' texts, one below the other (`info["messages"]` has their roles).
    Action: the policy's text.
    `reset(seed, options={"task": id or Task, "split": "train"})`: without a task, one of the
    split is drawn from the environment's random generator; the episode's seed is `seed`, or is
    drawn too. `info` has no durations, so that equal episodes have equal infos.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, id: str | Env, *, render_mode: str | None = None, **settings: Any) -> None:
        if render_mode not in (None, "ansi"):
            raise RecipeError(f"render_mode must be 'ansi' or None, got {render_mode!r}")
        if isinstance(id, Env) and settings:
            raise RecipeError(f"settings {sorted(settings)} go with an id, not with {id!r}")
        self.env = id if isinstance(id, Env) else make_env(id, **settings)
        self.render_mode = render_mode
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self._thread = LoopThread()
        self._tasks: dict[str, Sequence[Task]] = {}
        self._transcript: list[str] = []
        self._started = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode; see the class."""
        super().reset(seed=seed)
        options = options or {}
        for key in options:
            if key not in ("task", "split"):
                raise RecipeError(
                    f"unknown reset option {key!r}.{nearest(key, ('task', 'split'))} "
                    "Known: task, split."
                )
        split = options.get("split", "train")
        task = self._task(options.get("task"), split)
        # Drawn in any case, so that the generator's state does not depend on the options.
        drawn = int(self.np_random.integers(2**31))
        episode_seed = drawn if seed is None else seed
        observation = self._thread.run(self.env.reset(task, seed=episode_seed))
        self._started = True
        text = _text(observation)
        self._transcript = [text]
        return text, {
            "task": task.id,
            "split": split,
            "seed": episode_seed,
            "messages": _messages(observation),
        }

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one turn."""
        if not self._started:
            raise gymnasium.error.ResetNeeded("step was called before reset")
        result = self._thread.run(self.env.step(str(action)))
        text = _text(result.observation)
        self._transcript += [str(action), text]
        info = {
            "rewards": dict(result.info.rewards),
            "metrics": dict(result.info.metrics),
            "malformed_calls": result.info.malformed_calls,
            "state_key": result.info.state_key,
            "tool_calls": [
                {"name": one.name, "arguments": dict(one.arguments), "ok": one.ok}
                for one in result.info.tool_calls
            ],
            "messages": _messages(result.observation),
        }
        return text, float(result.reward), result.terminated, result.truncated, info

    def render(self) -> str | None:
        """The episode's text so far in mode `"ansi"`."""
        return "\n".join(self._transcript) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Close the environment and its event loop; may be called twice."""
        self._started = False
        self._thread.run(self.env.close())
        self._thread.close()

    def _task(self, wanted: object, split: str) -> Task:
        if isinstance(wanted, Task):
            return wanted
        if split not in self._tasks:
            self._tasks[split] = self.env.tasks(split)
        tasks = self._tasks[split]
        if not tasks:
            raise EnvError(
                f"{self.env!r} has no tasks in split {split!r}: give options={{'task': Task(...)}}"
            )
        if wanted is None:
            return tasks[int(self.np_random.integers(len(tasks)))]
        for task in tasks:
            if task.id == wanted:
                return task
        raise RecipeError(
            f"no task {wanted!r} in split {split!r} of {len(tasks)}."
            f"{nearest(str(wanted), (task.id for task in tasks))}"
        )


def gymnasium_id(id: str) -> str:
    """The Gymnasium id of one of ours: `search/facts` is `agentrl/search-facts`."""
    return f"{NAMESPACE}/{id.replace('/', '-')}"


def register_all() -> list[str]:
    """Register every installed environment with Gymnasium; returns the new ids.

    Happens when `agentrl.gym` is imported; doing it twice does no harm.
    """
    new = []
    for id_ in env_ids():
        name = gymnasium_id(id_)
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point="agentrl.gym:GymnasiumEnv", kwargs={"id": id_})
            new.append(name)
    return new


def _text(observation: Observation) -> str:
    return "\n".join(message.text for message in observation)


def _messages(observation: Observation) -> list[Mapping[str, str]]:
    return [{"role": message.role, "text": message.text} for message in observation]

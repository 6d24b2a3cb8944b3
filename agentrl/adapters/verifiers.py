"""Somebody else's verifiers environment as one of ours: our policy is the model that it calls.

Written against verifiers 0.4 (`verifiers.v1`), where a rollout is a program whose model calls go
over HTTP. Here the program is a chat loop of ours in the same process, and the model is a server
that hands each call to whoever steps the environment.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from agentrl.adapters.verifiers_messages import essence_of, message_of, tool_of
from agentrl.core.env import Env, Forkable, Observation, StepInfo, StepResult
from agentrl.core.errors import DataError, EnvError, RecipeError, SetupError
from agentrl.core.formats import Format, Parsed, make_format
from agentrl.core.types import Message, Task

if TYPE_CHECKING:
    import verifiers.v1 as vf

_INFINITE_TASKS = 256
_STOP_SECONDS = 10.0
# Its servers are kept for the next episode, which mostly begins as this one ends.
_LINGER_SECONDS = 5.0
_SHOWN_CHARS = 300
_NO_KEY = "AGENTRL_NO_KEY"

_Ask: TypeAlias = tuple[dict[str, Any], "asyncio.Future[dict[str, Any]]"]


class VerifiersEnv(Env):
    """A verifiers taskset or environment: `verifiers:NAME`, NAME a package or module.

    Observation: the conversation up to the first call of the model, tools described in front of
    it; then what the environment adds before its next call: results of tools, a user's turn.
    Action: the assistant's message: text, or calls as `<tool_call>` JSON where there are tools.
    Reward: the environment's rewards with their weights, when its rollout ends; before, 0.0.
    Ends: terminated when the rollout does; truncated where that was by a limit, as `max_turns`.
    A malformed call is told so, not passed on, and uses no turn of the environment's own; after
    `max_turns` of ours the episode is truncated in any case.
    Data: the taskset's tasks; those of evaluation are its last `eval_tasks`, or with
    `eval_taskset` the tasks of the same taskset with these settings.

    `taskset` and `env` are the settings of both in verifiers' own words. Every agent of the
    environment that names no model of its own is the policy, and only one may speak in an
    episode. Its program runs in this process; `runtime` is where its tools do. Branches by
    replay; say `fork: "no"` where the environment does not repeat itself.
    """

    def __init__(
        self,
        id: str,
        *,
        taskset: Mapping[str, Any] | None = None,
        eval_taskset: Mapping[str, Any] | None = None,
        eval_tasks: int = 16,
        env: Mapping[str, Any] | None = None,
        runtime: Mapping[str, Any] | None = None,
        max_turns: int = 16,
        fork: Literal["replay", "no"] = "replay",
        step_seconds: float = 300.0,
    ) -> None:
        if not id or max_turns < 1 or eval_tasks < 0 or step_seconds <= 0:
            raise RecipeError(
                f"verifiers:{id} needs a name, max_turns >= 1, eval_tasks >= 0 and "
                f"step_seconds > 0, got {max_turns}, {eval_tasks} and {step_seconds}"
            )
        self.id = id
        self.max_turns = max_turns
        self.eval_tasks = eval_tasks
        self.step_seconds = step_seconds
        self._fork: Forkable = fork
        base = {"id": id, **(taskset or {})}
        self._taskset_settings = {"train": base, "eval": {**base, **(eval_taskset or {})}}
        self._own_eval = eval_taskset is not None
        self._env_settings = dict(env or {})
        self._runtime = dict(runtime or {"type": "subprocess"})
        self._loaded: dict[str, list[vf.Task[Any, Any, Any]]] = {}
        self._world: _World | None = None
        self._episode: _Episode | None = None
        self._turn = 0

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """As the setting `fork` says."""
        return self._fork

    def tasks(self, split: str) -> Sequence[Task]:
        """The taskset's tasks, with all that verifiers knows of them."""
        found = self._split(split)
        return [
            Task(f"{split}-{index}", {"split": split, "index": index, "data": _data(one)})
            for index, one in found
        ]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start a rollout of `task`; the seed is not used, since verifiers has none."""
        await self._leave()
        settings = self._settings(str(task.data.get("split", "train")))
        if self._world is None or self._world.settings != settings:
            self._release()
            self._world = await _World.join(settings, self.id)
        self._turn = 0
        self._episode = _Episode(self._world, self._task_of(task), where=f"verifiers:{self.id}")
        first = await self._episode.next(self.step_seconds)
        if isinstance(first, StepResult):
            raise EnvError(f"verifiers:{self.id}: the rollout ended before it asked the model")
        return first

    async def step(self, action: str) -> StepResult:
        """Answer the call of the model that waits, and play on to the next."""
        episode = self._episode
        if episode is None:
            raise EnvError(f"verifiers:{self.id}: step was called before reset or after the end")
        self._turn += 1
        last = self._turn >= self.max_turns
        parsed = episode.parse(action)
        if parsed is not None and parsed.errors:
            if last:
                await self._leave()
            told = episode.format.observation((), parsed.errors)
            info = StepInfo(malformed_calls=len(parsed.errors))
            return StepResult(told, 0.0, False, last, info)
        episode.answer(action, parsed)
        found = await episode.next(self.step_seconds)
        if isinstance(found, StepResult):
            self._episode = None
            return found
        if last:
            await self._leave()
        return StepResult(found, 0.0, False, last, StepInfo())

    async def close(self) -> None:
        """End the rollout; the last env of this environment ends what serves it."""
        await self._leave()
        self._release()

    async def _leave(self) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            await episode.abandon()

    def _release(self) -> None:
        world, self._world = self._world, None
        if world is not None:
            world.leave()

    def _settings(self, split: str) -> dict[str, Any]:
        """The environment's settings in verifiers' words, and what every role gets from us."""
        return {
            **self._env_settings,
            "taskset": self._taskset_settings["eval" if split == "eval" else "train"],
            "_runtime": self._runtime,
            "_max_turns": self.max_turns,
        }

    def _split(self, split: str) -> list[tuple[int, vf.Task[Any, Any, Any]]]:
        if split not in ("train", "eval"):
            return []
        found = list(enumerate(self._load(split)))
        if self._own_eval:
            return found
        held_out = min(self.eval_tasks, len(found) // 2)
        border = len(found) - held_out
        return found[:border] if split == "train" else found[border:]

    def _load(self, split: str) -> list[vf.Task[Any, Any, Any]]:
        if split not in self._loaded:
            verifiers = _verifiers()
            try:
                config = verifiers.taskset_config_type(self.id)
                made = verifiers.load_taskset(config.model_validate(self._taskset_settings[split]))
                found = made if made.bounded else made.take(_INFINITE_TASKS)
                self._loaded[split] = list(found)
            except Exception as error:
                raise DataError(
                    f"verifiers:{self.id}: the taskset cannot be loaded: "
                    f"{type(error).__name__}: {error}"
                ) from error
        return self._loaded[split]

    def _task_of(self, task: Task) -> vf.Task[Any, Any, Any]:
        split, index = str(task.data.get("split")), task.data.get("index")
        known = self._load(split) if split in ("train", "eval") else []
        if not isinstance(index, int) or not 0 <= index < len(known):
            raise DataError(f"verifiers:{self.id}: {task.id!r} is no task of this taskset")
        return known[index]


class _World:
    """What all rollouts of one environment in one event loop share: verifiers' servers, and ours.

    verifiers enters and leaves its contexts in one task, `_serve`.
    """

    _known: ClassVar[
        weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, tuple[_World, int]]]
    ] = weakref.WeakKeyDictionary()

    def __init__(self, settings: dict[str, Any], id: str) -> None:
        self.settings = settings
        self.id = id
        self._key = _key(settings)
        self.episodes: dict[str, _Episode] = {}
        self.url = ""
        self.env: vf.Env[Any] | None = None
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    @classmethod
    async def join(cls, settings: dict[str, Any], id: str) -> _World:
        """The world of these settings, started if it is not there."""
        known = cls._known.setdefault(asyncio.get_running_loop(), {})
        key = _key(settings)
        world, users = known.get(key, (None, 0))
        if world is None or world._serving.done():
            world, users = cls(settings, id), 0
        known[key] = (world, users + 1)
        try:
            await asyncio.shield(world._ready)
        except BaseException:
            world.leave()
            raise
        return world

    def leave(self) -> None:
        """One user less; a while after the last one it ends."""
        loop = asyncio.get_running_loop()
        known = self._known.get(loop, {})
        world, users = known.get(self._key, (None, 0))
        if world is not self:
            self._stop.set()
            return
        known[self._key] = (self, users - 1)
        if users <= 1:
            loop.call_later(_LINGER_SECONDS, self._end_unused, known)

    def _end_unused(self, known: dict[str, tuple[_World, int]]) -> None:
        if known.get(self._key) == (self, 0):
            del known[self._key]
            self._stop.set()

    async def _serve(self) -> None:
        from aiohttp import web

        try:
            app = web.Application(client_max_size=2**30)
            app.router.add_post("/v1/chat/completions", self._complete)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
                self.env = self._load_env()
                async with self.env.serving():
                    self._ready.set_result(None)
                    await self._stop.wait()
            finally:
                await runner.cleanup()
        except Exception as error:
            if not self._ready.done():
                self._ready.set_exception(
                    EnvError(
                        f"verifiers:{self.id}: it cannot be set up: {type(error).__name__}: {error}"
                    )
                )
                self._ready.exception()  # whoever waited may be gone
        finally:
            self._ready.cancel()

    def _load_env(self) -> vf.Env[Any]:
        verifiers = _verifiers()
        from agentrl.adapters import verifiers_program

        # verifiers finds a program by the name of a top-level module.
        sys.modules.setdefault(verifiers_program.NAME, verifiers_program)
        raw = {key: value for key, value in self.settings.items() if not key.startswith("_")}
        config = verifiers.env_config_type(str(raw["taskset"]["id"]), str(raw.get("id", "")))
        role = {
            "harness": {"id": verifiers_program.NAME},
            "runtime": self.settings["_runtime"],
            "max_turns": self.settings["_max_turns"],
        }
        for name, field in config.model_fields.items():
            if isinstance(field.default, verifiers.AgentConfig):
                raw[name] = {**role, **raw.get(name, {})}
        return verifiers.load_environment(config.model_validate(raw))

    def context(self) -> vf.ModelContext:
        """The model in verifiers' words: our own server."""
        verifiers = _verifiers()
        client = verifiers.EvalClientConfig(base_url=self.url, api_key_var=_NO_KEY)
        return verifiers.ModelContext(model="policy", client=client)

    async def _complete(self, request: Any) -> Any:
        """A call of the model: it waits until the policy has acted."""
        from aiohttp import web

        episode = self.episodes.get(request.headers.get("x-session-id", ""))
        if episode is None:
            return web.json_response({"error": {"message": "no such episode"}}, status=410)
        body = await request.json()
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        episode.asked.put_nowait((body, answer))
        return web.json_response(await answer)


class _Episode:
    """One rollout of verifiers, run until the model is called, and again until the next call."""

    def __init__(self, world: _World, task: vf.Task[Any, Any, Any], *, where: str) -> None:
        self.asked: asyncio.Queue[_Ask] = asyncio.Queue()
        self.format: Format = make_format("json", ())
        self._world = world
        self._where = where
        self._ids: list[str] = []
        self._shown: list[dict[str, Any]] = []
        self._tools: object = None
        self._waiting: asyncio.Future[dict[str, Any]] | None = None
        self._numbers = itertools.count(1)
        assert world.env is not None
        self._run: asyncio.Task[vf.Episode] = asyncio.get_running_loop().create_task(
            world.env.run_episode(task, world.context(), on_trace=self._began)
        )

    def _began(self, trace: vf.Trace[Any, Any, Any]) -> None:
        self._ids.append(trace.id)
        self._world.episodes[trace.id] = self

    async def next(self, seconds: float) -> Observation | StepResult:
        """What the environment says before the model's next call, or how the rollout ended."""
        asking = asyncio.ensure_future(self.asked.get())
        try:
            await asyncio.wait(
                {asking, self._run}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if asking.done():
                body, self._waiting = asking.result()
                return self._observe(body)
            if self._run.done():
                return self._ended(self._run.result())
        except BaseException:
            await self.abandon()
            raise
        finally:
            asking.cancel()
        await self.abandon()
        raise EnvError(f"{self._where}: nothing happened for {seconds:g} s")

    def parse(self, action: str) -> Parsed | None:
        """The calls of an action, where there are tools to call."""
        return self.format.parse(action) if self.format.tools else None

    def answer(self, action: str, parsed: Parsed | None) -> None:
        """Give the model's answer to the call that waits."""
        assert self._waiting is not None
        calls = [
            {
                "id": f"call-{next(self._numbers)}",
                "type": "function",
                "function": {"name": one.name, "arguments": json.dumps(one.arguments)},
            }
            for one in (parsed.calls if parsed else ())
        ]
        # Tools are described with an answer in tags, which are ours and not the environment's.
        text = parsed.answer if parsed is not None and parsed.answer is not None else action
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else text}
        if calls:
            message["tool_calls"] = calls
        self._shown.append(message)
        reason = "tool_calls" if calls else "stop"
        completion = {
            "id": f"completion-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "policy",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }
        self._waiting.set_result(completion)
        self._waiting = None

    async def abandon(self) -> None:
        """End the rollout without a result."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._run.cancel()
        await asyncio.wait({self._run}, timeout=_STOP_SECONDS)
        self._forget()

    def _forget(self) -> None:
        for id_ in self._ids:
            self._world.episodes.pop(id_, None)

    def _observe(self, body: Mapping[str, Any]) -> Observation:
        messages = [dict(one) for one in body.get("messages", ())]
        count = len(self._shown)
        if list(map(essence_of, messages[:count])) != list(map(essence_of, self._shown)):
            raise EnvError(
                f"{self._where}: another conversation than before: the environment rewrites what "
                "was said, or more than one agent asks the policy"
            )
        new, self._shown = messages[count:], messages
        observation = tuple(message_of(one) for one in new)
        if count == 0:
            return self._with_tools(observation, body.get("tools"))
        if body.get("tools") != self._tools:
            raise EnvError(f"{self._where}: the tools changed in the middle of an episode")
        return observation

    def _with_tools(self, first: Observation, tools: object) -> Observation:
        """The first messages, with the tools described in the system message."""
        self._tools = tools
        if not isinstance(tools, list) or not tools:
            return first
        self.format = make_format("json", [tool_of(one, self._where) for one in tools])
        described = self.format.instructions()
        if first and first[0].role == "system":
            # One message: chat templates know no second one.
            described = f"{first[0].text}\n\n{described}"
            first = first[1:]
        return (Message.of("system", described), *first)

    def _ended(self, episode: vf.Episode) -> StepResult:
        self._forget()
        failures = [*episode.errors, *(one for trace in episode.traces for one in trace.errors)]
        if failures or not episode.traces:
            said = "; ".join(f"{one.type}: {one.message}" for one in failures[:2]) or "no trace"
            raise EnvError(f"{self._where}: the rollout failed: {said[:_SHOWN_CHARS]}")
        rewards: dict[str, float] = {}
        metrics: dict[str, float] = {}
        for trace in episode.traces:
            for name, reward in trace.rewards.items():
                rewards[name] = rewards.get(name, 0.0) + float(reward.value)
            metrics |= {name: float(value) for name, value in trace.metrics.items()}
        truncated = any(trace.is_truncated for trace in episode.traces)
        info = StepInfo(rewards=rewards, metrics=metrics)
        total = sum(rewards.values())
        return StepResult((), total, not truncated, truncated, info)


def _verifiers() -> Any:
    try:
        import verifiers.v1
    except ImportError as error:
        raise SetupError(
            "verifiers is not installed here. It asks for other versions than agentrl's training "
            "stack: put both into a virtual environment of their own (pip install agentrl "
            'verifiers==0.4.0) and name it, as in "isolated:/path/to/venv/bin/python:'
            'verifiers:NAME"'
        ) from error
    return verifiers.v1


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=repr)


def _data(task: vf.Task[Any, Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = task.data.model_dump(mode="json", exclude_none=True)
    return found

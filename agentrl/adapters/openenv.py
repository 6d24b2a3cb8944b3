"""Somebody else's OpenEnv server as one of our environments, over its own WebSocket protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from agentrl.core.env import Env, Forkable, Observation, StepInfo, StepResult
from agentrl.core.errors import EnvError, RecipeError, SetupError
from agentrl.core.types import Message, Task

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_EVAL_SEEDS = 1_000_000
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_MAX_MESSAGE = 100 * 2**20
_SHOWN_CHARS = 200
_REFUSED = "VALIDATION_ERROR"


class OpenEnv(Env):
    """An environment behind an OpenEnv server: `openenv:http://host:port`.

    Observation: `prompt` and what `reset` shows; then what each step shows: the text of
    `observation_field` where one is named, else the whole observation as JSON.
    Action: the policy's text as the field `action_field`, or, where none is named, a JSON object
    that is the action; `action_fields` are added to either. Thinking up to `</think>` does not
    count, and with `action_tag` only what stands between `<tag>` and `</tag>` does.
    Reward: the server's, as `reward`; none is 0.
    Ends: terminated where the server says `done`; truncated after `max_turns` actions. An action
    that the server refuses (or that is no JSON object) is told so and uses a turn.
    Data: a task is the seed that the server is reset with, `seeds` of them in each split, those
    of evaluation from 1,000,000 on; `reset` are further arguments of its reset.

    Each env holds one connection, which is one session of the server: it must allow as many as
    episodes are live (`max_concurrent_envs` of its `create_app`). An episode branches by replay;
    say `fork: "no"` where the server does not repeat itself.
    """

    def __init__(
        self,
        id: str,
        *,
        action_field: str = "",
        action_fields: Mapping[str, Any] | None = None,
        action_tag: str = "",
        observation_field: str = "",
        prompt: str = "",
        reset: Mapping[str, Any] | None = None,
        max_turns: int = 32,
        seeds: int = 64,
        fork: Literal["replay", "no"] = "replay",
        step_seconds: float = 120.0,
    ) -> None:
        parts = urlsplit(id)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise RecipeError(
                f"openenv:{id}: an address like openenv:http://127.0.0.1:8000 is needed"
            )
        if max_turns < 1 or seeds < 1 or step_seconds <= 0:
            raise RecipeError(
                f"openenv:{id} needs max_turns >= 1, seeds >= 1 and step_seconds > 0, got "
                f"{max_turns}, {seeds} and {step_seconds}"
            )
        self.id = id
        self.action_field = action_field
        self.action_fields = dict(action_fields or {})
        self.action_tag = action_tag
        self.observation_field = observation_field
        self.prompt = prompt
        self.reset_arguments = dict(reset or {})
        self.max_turns = max_turns
        self.seeds = seeds
        self.step_seconds = step_seconds
        self._fork: Forkable = fork
        self._url = f"ws{id.rstrip('/').removeprefix('http')}/ws"
        self._websocket: ClientConnection | None = None
        self._playing = False
        self._turn = 0

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """As the setting `fork` says."""
        return self._fork

    @property
    def stop(self) -> tuple[str, ...]:
        """The closing tag, where there is one."""
        return (f"</{self.action_tag}>",) if self.action_tag else ()

    def tasks(self, split: str) -> Sequence[Task]:
        """One for each seed."""
        first = 0 if split == "train" else _EVAL_SEEDS
        return [Task(f"{split}-{first + n}", {"seed": first + n}) for n in range(self.seeds)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode from the task's seed, or from `seed` where the task has none."""
        self._playing, self._turn = False, 0
        if self._websocket is None:
            self._websocket = await self._connect()
        start = int(task.data.get("seed", seed))
        answer = await self._ask("reset", {"seed": start, **self.reset_arguments})
        if answer["type"] == "error":
            self._fail("reset", answer)
        data = self._data(answer)
        if data.get("done"):
            raise EnvError(f"openenv:{self.id}: the episode was over when it was reset")
        self._playing = True
        pieces = [self.prompt, self._text(data)]
        return (Message.of("user", "\n".join(piece for piece in pieces if piece)),)

    async def step(self, action: str) -> StepResult:
        """Play one turn."""
        if not self._playing:
            raise EnvError(f"openenv:{self.id}: step was called before reset or after the end")
        self._turn += 1
        last = self._turn >= self.max_turns
        parsed = self._parse(action)
        if isinstance(parsed, str):
            return self._told(parsed, last)
        answer = await self._ask("step", {**parsed, **self.action_fields})
        if answer["type"] == "error":
            if _details(answer).get("code") == _REFUSED:
                return self._told(_refusal(_details(answer)), last)
            self._fail("step", answer)
        data = self._data(answer)
        reward = float(data.get("reward") or 0.0)
        terminated = bool(data.get("done"))
        truncated = last and not terminated
        self._playing = not (terminated or truncated)
        observation = (Message.of("user", self._text(data)),)
        info = StepInfo(rewards={"reward": reward})
        return StepResult(observation, reward, terminated, truncated, info)

    async def close(self) -> None:
        """End the session, and wait until the server has; may be called twice."""
        from websockets.exceptions import ConnectionClosed

        websocket, self._websocket, self._playing = self._websocket, None, False
        if websocket is None:
            return
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await websocket.send('{"type": "close"}')
                # The server hangs up when the session is gone, and its place is free again.
                while True:
                    await websocket.recv()
        await websocket.close()

    async def _connect(self) -> ClientConnection:
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import WebSocketException
        except ImportError as error:
            raise SetupError(
                'OpenEnv servers need the package websockets: pip install "agentrl[openenv]"'
            ) from error
        try:
            return await connect(
                self._url,
                max_size=_MAX_MESSAGE,
                open_timeout=_CONNECT_SECONDS,
                close_timeout=1.0,
                ping_interval=None,
                proxy=None,
            )
        except (OSError, WebSocketException, TimeoutError) as error:
            said = str(error) or type(error).__name__
            raise EnvError(f"openenv:{self.id}: the server cannot be reached: {said}") from error

    async def _ask(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one message; a session whose state nobody knows is hung up."""
        from websockets.exceptions import ConnectionClosed

        websocket = self._websocket
        assert websocket is not None
        why = f"{kind} was cancelled"
        try:
            async with asyncio.timeout(self.step_seconds):
                # A server that hung up may have said why before.
                with contextlib.suppress(ConnectionClosed):
                    await websocket.send(json.dumps({"type": kind, "data": data}))
                answer = json.loads(await websocket.recv())
            if isinstance(answer, dict) and answer.get("type") in ("observation", "error"):
                if _details(answer).get("code") == "CAPACITY_REACHED":
                    await self._drop()  # the server has hung up
                    self._fail(kind, answer)
                return answer
            why = f"{kind} was answered by {_short(answer)}"
        except TimeoutError:
            why = f"{kind} passed its deadline of {self.step_seconds:g} s"
        except ConnectionClosed as error:
            why = f"{kind} was lost: {error}"
        except ValueError as error:
            why = f"{kind} was answered by what is no JSON: {error}"
        except BaseException:
            await self._drop()
            raise
        await self._drop()
        raise EnvError(f"openenv:{self.id}: {why}")

    async def _drop(self) -> None:
        websocket, self._websocket, self._playing = self._websocket, None, False
        if websocket is not None:
            websocket.transport.abort()

    def _fail(self, kind: str, answer: Mapping[str, Any]) -> None:
        self._playing = False
        details = _details(answer)
        hint = (
            "; let the server have more sessions (max_concurrent_envs) or play fewer episodes at "
            "once (rollout.concurrency)"
            if details.get("code") == "CAPACITY_REACHED"
            else ""
        )
        raise EnvError(
            f"openenv:{self.id}: {kind} failed on the server ({details.get('code')}): "
            f"{_short(details.get('message'))}{hint}"
        )

    def _data(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        data = answer.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("observation"), dict):
            raise EnvError(f"openenv:{self.id}: the server shows no observation: {_short(answer)}")
        return data

    def _told(self, refusal: str, last: bool) -> StepResult:
        self._playing = not last
        told = (Message.of("user", f"error: {refusal}"),)
        return StepResult(told, 0.0, False, last, StepInfo(malformed_calls=1))

    def _parse(self, action: str) -> dict[str, Any] | str:
        """The action for the server, or why there is none."""
        text = action.rpartition("</think>")[2]
        if self.action_tag:
            opening, closing = f"<{self.action_tag}>", f"</{self.action_tag}>"
            text, closed, _ = text.partition(opening)[2].partition(closing)
            if not closed:
                return f"write your action between {opening} and {closing}."
        if self.action_field:
            return {self.action_field: text.strip()}
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return "the action is no JSON."
        return parsed if isinstance(parsed, dict) else "the action is no JSON object."

    def _text(self, data: Mapping[str, Any]) -> str:
        observation = data["observation"]
        if not self.observation_field:
            return json.dumps(observation, ensure_ascii=False, sort_keys=True)
        if self.observation_field not in observation:
            raise EnvError(
                f"openenv:{self.id}: the observation has no field {self.observation_field!r}. "
                f"Its fields: {', '.join(observation) or 'none'}"
            )
        found = observation[self.observation_field]
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _details(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def _refusal(details: Mapping[str, Any]) -> str:
    """Which field of an action the server refused, and why."""
    errors = details.get("errors")
    said = [
        f"{'.'.join(map(str, one.get('loc', ())))}: {one.get('msg', '')}"
        for one in (errors if isinstance(errors, list) else [])[:3]
        if isinstance(one, dict)
    ]
    return f"the action was refused: {_short('; '.join(said) or details.get('message'))}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."

"""One environment of ours served over HTTP: its sessions travel over WebSockets.

| request | what it does |
| --- | --- |
| `GET /health` | says that the server is up, and how many sessions it has; needs no token |
| `GET /v1/env` | id of the environment, version of the protocol, this server's own mark |
| `POST /v1/ask` | `[operation, ...]`, a question that needs no session (`envhost.about`) |
| `WS /v1/episodes` | the frames of `agentrl.adapters.wire`, as environment hosts speak them |

A client names the protocol's version in the header `agentrl-protocol` and the token in
`Authorization: Bearer ...`. A session ends with its connection, or when nothing was asked of it
for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from agentrl.adapters.envhost import EnvHost, about, describe_error
from agentrl.adapters.wire import PROTOCOL, Json
from agentrl.core.env import Env
from agentrl.core.errors import EnvError
from agentrl.core.registry import make_env
from agentrl.core.threads import in_thread

SERVED_VARIABLE = "AGENTRL_SERVED_ENV"
"""Environment variable that tells a worker process what to serve, as JSON."""

_HIGH_WATER = 4 * 2**20
_SWEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is served, and within which bounds.

    `token` is what clients must show; `""` lets everybody in. `sessions`, `idle_seconds` and
    `body_bytes` bound each worker process. `mark` tells this server from one started later.
    """

    id: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    token: str = ""
    sessions: int = 4096
    idle_seconds: float = 900.0
    body_bytes: int = 16 * 2**20
    workers: int = 1
    mark: str = field(default_factory=lambda: secrets.token_hex(8))


class _ServedHost(EnvHost):
    """An environment host with one environment, whatever its clients ask for."""

    def __init__(self, served: Served) -> None:
        super().__init__(
            max_sessions=served.sessions,
            idle_seconds=served.idle_seconds or math.inf,
            max_bytes=served.body_bytes,
        )
        self._served = served

    def make(self, env_id: str, arguments: Mapping[str, Json]) -> Env:
        """A new env of the kind that is served."""
        return make_env(self._served.id, **self._served.settings)


class _Outgoing(asyncio.Transport):
    """The side of a WebSocket that a host writes to."""

    def __init__(self, websocket: WebSocket, protocol_lost: asyncio.Event) -> None:
        super().__init__()
        self.readable = asyncio.Event()
        self.readable.set()
        self._websocket = websocket
        self._lost = protocol_lost
        self._frames: list[bytes] = []
        self._waiting = 0
        self._wake = asyncio.Event()
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a frame; a client that does not read its answers is not read either."""
        self._frames.append(bytes(data))
        self._waiting += len(data)
        if self._waiting > _HIGH_WATER:
            self.readable.clear()
        self._wake.set()

    def close(self) -> None:
        """Hang up after what is queued."""
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        """Hang up now."""
        self._frames.clear()
        self.close()

    def is_closing(self) -> bool:
        """Whether it hangs up."""
        return self._closing

    def pause_reading(self) -> None:
        """Read no more from the client."""
        self.readable.clear()

    def resume_reading(self) -> None:
        """Read on."""
        self.readable.set()

    async def send(self) -> None:
        """Write to the client until the end."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while not self._closing or self._frames:
                await self._wake.wait()
                self._wake.clear()
                frames, self._frames = self._frames, []
                if frames:
                    await self._websocket.send_bytes(b"".join(frames))
                self._waiting = 0
                self.readable.set()
            await self._websocket.close(1008)
        self._lost.set()


class EnvServer:
    """The routes of one worker process, and the host behind them."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.host = _ServedHost(served)
        self._asked: Env | None = None
        self._asking = asyncio.Lock()

    def app(self) -> Starlette:
        """What an ASGI server runs."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/env", self._about),
                Route("/v1/ask", self._ask, methods=["POST"]),
                WebSocketRoute("/v1/episodes", self._episodes),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.host.start()
        sweeper = asyncio.get_running_loop().create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            await self.host.close()
            if self._asked is not None:
                await self._asked.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, max(0.01, self.served.idle_seconds / 4)))
            self.host.expire()

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        """Why this client may not go on; None where it may."""
        if "origin" in connection.headers:
            # A web page that its user never meant to let near this server.
            return _told(403, "EnvError", "environments are not served to web pages")
        shown = connection.headers.get("authorization", "")
        wanted = f"Bearer {self.served.token}"
        if self.served.token and not hmac.compare_digest(shown.encode(), wanted.encode()):
            return _told(401, "SetupError", "the server asks for another token")
        spoken = connection.headers.get("agentrl-protocol", str(PROTOCOL))
        if spoken != str(PROTOCOL):
            return _told(
                409,
                "SetupError",
                f"the server speaks version {PROTOCOL} of the protocol, the client {spoken}: "
                "install the same agentrl on both sides",
            )
        return None

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "sessions": self.host.sessions})

    async def _about(self, request: Request) -> Response:
        served = self.served
        return self._refusal(request) or JSONResponse(
            {
                "protocol": PROTOCOL,
                "id": served.id,
                "workers": served.workers,
                "mark": served.mark,
            }
        )

    async def _ask(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > self.served.body_bytes:
                text = f"a request of more than {self.served.body_bytes:,} bytes"
                return _told(413, "EnvError", text)
        try:
            question = json.loads(body)
        except (ValueError, RecursionError) as error:
            return _told(400, "EnvError", f"the request is not JSON: {error}")
        if not isinstance(question, list) or not question:
            return _told(400, "EnvError", "a question is [operation, ...]")
        # One at a time: an env is not made for threads.
        async with self._asking:
            try:
                # Not in the loop's own thread: tasks may be read from a large file.
                value = await in_thread(lambda: self._answer(question))
            except Exception as error:
                where = self.served.id
                return _told(422, *describe_error(error, where=where, operation=str(question[0])))
        return JSONResponse({"value": value})

    def _answer(self, question: list[Json]) -> Json:
        if self._asked is None:
            self._asked = make_env(self.served.id, **self.served.settings)
        return about(self._asked, question)

    async def _episodes(self, websocket: WebSocket) -> None:
        if (refusal := self._refusal(websocket)) is not None:
            await websocket.send_denial_response(refusal)
            return
        await websocket.accept(headers=[(b"agentrl-mark", self.served.mark.encode())])
        lost = asyncio.Event()
        outgoing = _Outgoing(websocket, lost)
        connection = self.host.join(outgoing)
        sending = asyncio.get_running_loop().create_task(outgoing.send())
        receiving = asyncio.get_running_loop().create_task(
            _receive(websocket, connection, outgoing)
        )
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
            connection.connection_lost(None)


async def _receive(websocket: WebSocket, connection: asyncio.Protocol, outgoing: _Outgoing) -> None:
    while True:
        await outgoing.readable.wait()
        message = await websocket.receive()
        if message["type"] != "websocket.receive":
            return
        data = message.get("bytes")
        # Text is no frame: its reader says so.
        connection.data_received((message.get("text") or "").encode() if data is None else data)


def _told(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": [kind, message]}, status_code=status)


def served_from_environment() -> Starlette:
    """The app of a worker process, which its parent tells in `SERVED_VARIABLE` what to serve."""
    told = os.environ.get(SERVED_VARIABLE)
    if told is None:
        raise EnvError(f"{SERVED_VARIABLE} does not say what to serve")
    return EnvServer(Served(**json.loads(told))).app()


def tell_workers(served: Served) -> None:
    """Put `served` where `served_from_environment` of child processes finds it."""
    os.environ[SERVED_VARIABLE] = json.dumps(asdict(served))

"""The environment behind `agentrl serve env`, as if it were here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentrl.adapters.connection import Connection, Deadlines, told_error
from agentrl.adapters.elsewhere import Elsewhere, EnvElsewhere, check_seconds
from agentrl.adapters.wire import PROTOCOL, Json
from agentrl.core.errors import EnvError, RecipeError, SetupError
from agentrl.core.threads import in_thread

if TYPE_CHECKING:
    import httpx
    from websockets.asyncio.client import ClientConnection

TOKEN_VARIABLE = "AGENTRL_TOKEN"
"""Environment variable with the token that a server asks for, on both sides."""

_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 2.0
# The system notices a machine that is gone: no timer of ours that a busy event loop would delay.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class _Server(Elsewhere):
    """A server that `agentrl serve env` started."""

    def __init__(self, url: str, *, token: str, deadlines: Deadlines) -> None:
        super().__init__(f"remote:{url}", deadlines=deadlines)
        self.url = url
        self._headers = {"agentrl-protocol": str(PROTOCOL)}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._client: httpx.Client | None = None
        self._mark = ""
        self._workers = 1

    def ask(self, operation: str, *arguments: Json) -> Json:
        """The answer to a question; `EnvError` where nobody answers."""
        with self._lock:
            if not self._mark:
                self._meet()
            value: Json = self._request("POST", "/v1/ask", [operation, *arguments])["value"]
            return value

    def _meet(self) -> None:
        """Learn which server this is."""
        told = self._request("GET", "/v1/env", None)
        if told.get("protocol") != PROTOCOL:
            raise SetupError(
                f"{self.env_id}: the server speaks version {told.get('protocol')} of the protocol, "
                f"this agentrl version {PROTOCOL}: install the same on both sides"
            )
        self._mark, self._workers = str(told["mark"]), int(told["workers"])

    def _request(self, method: str, path: str, body: object) -> dict[str, Any]:
        import httpx

        if self._client is None:
            self._client = httpx.Client(
                headers=self._headers,
                timeout=httpx.Timeout(self.deadlines.open, connect=_CONNECT_SECONDS),
                trust_env=False,
            )
        try:
            response = self._client.request(method, self.url + path, json=body)
        except httpx.HTTPError as error:
            raise EnvError(
                f"{self.env_id}: the server cannot be reached: {error or type(error).__name__}. "
                "`agentrl serve env ID` starts one"
            ) from error
        return self._told(response.status_code, response.content)

    def _told(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        if isinstance(told, dict) and status == 200:
            return told
        if isinstance(told, dict) and isinstance(told.get("error"), list):
            error = told_error([0, *told["error"]])
            hint = f"; it is read from the variable {TOKEN_VARIABLE}" if status == 401 else ""
            raise type(error)(f"{self.env_id}: {error}{hint}")
        raise EnvError(
            f"{self.env_id}: no agentrl server answers there (status {status}, {content[:60]!r})"
        )

    def _width(self) -> int:
        return self._workers

    async def _connect(self) -> Connection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        if not self._mark:
            # Blocking, in a thread: whoever only steps never asked before.
            await in_thread(self._meet)
        scheme, _, rest = self.url.partition("://")
        address = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/v1/episodes"
        try:
            websocket = await connect(
                address,
                additional_headers=self._headers,
                compression=None,
                max_size=None,
                max_queue=None,
                open_timeout=_CONNECT_SECONDS,
                close_timeout=1.0,
                ping_interval=None,
                proxy=None,
            )
        except InvalidStatus as error:
            self._told(error.response.status_code, bytes(error.response.body or b""))
            raise EnvError(f"{self.env_id}: {error}") from error
        except (OSError, WebSocketException, TimeoutError) as error:
            said = str(error) or type(error).__name__
            raise EnvError(
                f"{self.env_id}: the server cannot be reached: {said}. `agentrl serve env ID` "
                "starts one"
            ) from error
        self._keep_alive(websocket)
        mark = websocket.response.headers.get("agentrl-mark", "") if websocket.response else ""
        if mark != self._mark:
            # Another server since: what the old one said of itself need not hold.
            with self._lock:
                self._mark, self._described = mark, None
                self._tasks.clear()
        connection = Connection(f"the server at {self.url}")
        connection.connection_made(_WebSocket(websocket, connection))
        await connection.call("hello", 0, PROTOCOL, seconds=_CONNECT_SECONDS)
        return connection

    def _keep_alive(self, websocket: ClientConnection) -> None:
        found = websocket.transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEP_ALIVE.items():
                if hasattr(socket, name):
                    found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    async def _hang_up(self, connection: Connection) -> None:
        transport = connection.transport
        await super()._hang_up(connection)
        if isinstance(transport, _WebSocket):
            await transport.ended()

    async def why_lost(self, connection: Connection) -> str:
        """Whether the server is gone or was started again."""
        import httpx

        try:
            async with httpx.AsyncClient(
                headers=self._headers, timeout=_PROBE_SECONDS, trust_env=False
            ) as client:
                mark = (await client.get(f"{self.url}/v1/env")).json()["mark"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return "the server is gone"
        if mark != self._mark:
            return "the server was started again, and its old sessions are lost"
        return "the server is up: the connection to it broke"


class _WebSocket(asyncio.Transport):
    """A WebSocket as the transport of a `Connection`."""

    def __init__(self, websocket: ClientConnection, connection: Connection) -> None:
        super().__init__()
        self._websocket = websocket
        self._connection = connection
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._send())]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a frame."""
        self._frames.append(bytes(data))
        self._wake.set()

    def abort(self) -> None:
        """Hang up; `ended` waits for it."""
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._websocket.transport.abort()

    def is_closing(self) -> bool:
        """Whether the WebSocket has ended."""
        return self._websocket.transport.is_closing()

    async def ended(self) -> None:
        """Wait until nothing of it runs any more."""
        await asyncio.gather(*self._tasks, self._websocket.wait_closed(), return_exceptions=True)

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while True:
                data = await self._websocket.recv(decode=False)
                self._connection.data_received(data)
        self._tasks[1].cancel()
        self._connection.connection_lost(None)

    async def _send(self) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._wake.wait()
                self._wake.clear()
                frames, self._frames = self._frames, []
                await self._websocket.send(b"".join(frames))


class ServedEnv(EnvElsewhere):
    """The environment of a server that `agentrl serve env` started: `remote:http://host:port`.

    Observation, action, reward, ends, data: the environment's. So are tool schemas, stop strings,
    gold actions and the way it forks (a copy is made on the server).

    The token is read from the variable `AGENTRL_TOKEN`. A failure of the server or of the way to
    it is an `EnvError`, told at once where the connection ends; a call that gets no answer is
    given up after `open_seconds`, `reset_seconds` or `step_seconds`.
    """

    def __init__(
        self,
        id: str,
        *,
        open_seconds: float = 60.0,
        reset_seconds: float = 120.0,
        step_seconds: float = 120.0,
    ) -> None:
        parts = urlsplit(id)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise RecipeError(
                f"remote:{id}: an address like remote:http://127.0.0.1:8000 is needed"
            )
        check_seconds(f"remote:{id}", open_seconds, reset_seconds, step_seconds)
        deadlines = Deadlines(open=open_seconds, reset=reset_seconds, step=step_seconds)
        token = os.environ.get(TOKEN_VARIABLE, "")
        super().__init__(_server(id.rstrip("/"), token, deadlines, os.getpid()))


@lru_cache(maxsize=64)
def _server(url: str, token: str, deadlines: Deadlines, pid: int) -> _Server:
    return _Server(url, token=token, deadlines=deadlines)

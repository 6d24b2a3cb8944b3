"""The tools of MCP servers, started as processes or reached over HTTP, through the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import re
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self, TypeAlias

from pydantic import Field, model_validator

from agentrl.core.errors import ContractError, EnvError, RecipeError, SetupError, ToolError
from agentrl.core.settings import Settings
from agentrl.core.tool import Tool

if TYPE_CHECKING:
    from mcp import Client

_STOP_SECONDS = 10.0
# Servers take a second to start: one that the next episode needs is not ended before it.
_LINGER_SECONDS = 5.0
_TAIL_BYTES = 600
_PAGES = 100
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class McpServer(Settings):
    """An MCP server: `command` and `args` of a process, or `url` of one behind streamable HTTP.

    A process gets the variables PATH, HOME, USER, LOGNAME, SHELL and TERM, and those of `env`, and
    nothing else of this process's environment. `headers` go with each request to `url`. With
    `tools` only those are offered; with `prefix` the names that the policy writes start with it.
    A call may take `timeout` seconds, a start `start_seconds`; a result is cut at
    `max_result_chars` characters.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = Field(default_factory=dict)
    tools: tuple[str, ...] | None = None
    prefix: str = ""
    timeout: float = Field(default=30.0, gt=0)
    start_seconds: float = Field(default=30.0, gt=0)
    max_result_chars: int = Field(default=8000, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("an MCP server has a `command` or a `url`, one of the two")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, got {self.url!r}")
        return self

    @property
    def where(self) -> str:
        """The server in messages."""
        return f"MCP server {self.url or ' '.join((self.command, *self.args))!r}"


class McpTool(NamedTuple):
    """A tool as a server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class McpConnection:
    """One server, connected by the first call; a server that died is started again by the next.

    Use it from one event loop. `close` ends the process, or the session of a server behind HTTP.
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self._owner: asyncio.Task[None] | None = None
        self._client: asyncio.Future[Client] | None = None
        self._stop: asyncio.Event | None = None
        self._errors: BinaryIO | None = None

    async def list_tools(self) -> tuple[McpTool, ...]:
        """All tools that the server offers; `EnvError` when it cannot be reached."""
        client = await self._connected()
        found: list[McpTool] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(self.server.start_seconds):
                for _ in range(_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    for one in page.tools:
                        described = one.description or one.title or one.name
                        found.append(McpTool(one.name, described, one.input_schema))
                    cursor = page.next_cursor
                    if not cursor:
                        break
        except Exception as error:
            await self.close()
            raise EnvError(
                f"{self.server.where} does not list its tools: {self._said(error)}"
            ) from error
        return tuple(found)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The text of the result of tool `name`.

        Raises:
            ToolError: the tool or the server refused the call, in its own words, or was too slow.
            EnvError: the server died or cannot be reached.
        """
        from mcp import MCPError
        from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND

        client = await self._connected()
        try:
            async with asyncio.timeout(self.server.timeout):
                result = await client.call_tool(name, dict(arguments))
        except TimeoutError as error:
            seconds = self.server.timeout
            raise ToolError(f"{name} did not answer within {seconds:g} s.") from error
        except MCPError as error:
            if error.code in (INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, INTERNAL_ERROR):
                raise ToolError(str(error)) from error
            await self._lost(name, error)
        except Exception as error:
            await self._lost(name, error)
        text = "\n".join(_text(block) for block in result.content)
        if result.is_error:
            raise ToolError(text[: self.server.max_result_chars] or "the tool failed")
        return text

    async def close(self) -> None:
        """End the connection; may be called twice, and the connection used again."""
        owner, stop, self._owner = self._owner, self._stop, None
        if owner is None or stop is None:
            return
        if owner.get_loop() is not asyncio.get_running_loop():
            return
        stop.set()
        done, _ = await asyncio.wait({owner}, timeout=_STOP_SECONDS)
        if not done:
            owner.cancel()
            await asyncio.wait({owner}, timeout=_STOP_SECONDS)

    async def _lost(self, name: str, error: Exception) -> None:
        said = self._said(error)
        await self.close()
        raise EnvError(f"{self.server.where}: {name} was lost: {said}") from error

    async def _connected(self) -> Client:
        if self._owner is None or self._owner.done() or self._client is None:
            _need_sdk()
            loop = asyncio.get_running_loop()
            self._client, self._stop = loop.create_future(), asyncio.Event()
            self._owner = loop.create_task(self._own(self._client, self._stop))
        # Shielded: a caller that gives up must not take the connection from the others.
        return await asyncio.shield(self._client)

    async def _own(self, ready: asyncio.Future[Client], stop: asyncio.Event) -> None:
        """Hold the connection: the SDK's contexts must end in the task that began them."""
        from mcp import Client

        with contextlib.ExitStack() as files:
            self._errors = files.enter_context(tempfile.TemporaryFile())
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with asyncio.timeout(self.server.start_seconds):
                        transport = await self._transport(stack)
                        client = await stack.enter_async_context(Client(transport))
                    ready.set_result(client)
                    await stop.wait()
            except asyncio.CancelledError:
                ready.cancel()
                raise
            except BaseException as error:
                if ready.done():
                    # What a connection says while it ends concerns nobody any more.
                    return
                ready.set_exception(self._no_start(error))
                ready.exception()  # whoever asked may have given up

    async def _transport(self, stack: contextlib.AsyncExitStack) -> Any:
        server = self.server
        if server.url:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            http = httpx2.AsyncClient(
                headers=dict(server.headers),
                timeout=httpx2.Timeout(server.timeout + 5.0, connect=server.start_seconds),
            )
            return streamable_http_client(
                server.url, http_client=await stack.enter_async_context(http)
            )
        from mcp.client.stdio import StdioServerParameters, stdio_client

        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
        )
        return stdio_client(parameters, errlog=self._errors)  # type: ignore[arg-type]

    def _no_start(self, error: BaseException) -> Exception:
        if isinstance(error, FileNotFoundError) and self.server.command:
            return SetupError(
                f"{self.server.where}: there is no program {self.server.command!r}; install it or "
                "give its path"
            )
        return EnvError(f"{self.server.where} cannot be reached: {self._said(error)}")

    def _said(self, error: BaseException) -> str:
        """The error in words, with the last ones of the process."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        said = str(error) or type(error).__name__
        if self._errors is None or self._errors.closed:
            return said
        self._errors.seek(0, 2)
        self._errors.seek(max(0, self._errors.tell() - _TAIL_BYTES))
        tail = self._errors.read().decode(errors="replace").strip().splitlines()[-3:]
        return f"{said}; its last words: {' | '.join(tail)}" if tail else said


def _need_sdk() -> None:
    if importlib.util.find_spec("mcp") is None:
        raise SetupError('MCP servers need the package mcp: pip install "agentrl[mcp]"')


def _text(block: Any) -> str:
    """A block of a result as text; what is none is named."""
    if block.type == "text":
        return str(block.text)
    resource = getattr(block, "resource", None)
    if resource is not None and getattr(resource, "text", None) is not None:
        return str(resource.text)
    uri = getattr(block, "uri", None)
    return f"[{block.type}{f' {uri}' if uri else ''}]"


# By the server's settings as JSON; the number is that of its holders.
_Connections: TypeAlias = dict[str, tuple[McpConnection, int]]
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections]
_shared = weakref.WeakKeyDictionary()
_endings: set[asyncio.Task[None]] = set()


class McpTools:
    """The tools of some servers, for one holder: an environment, or whoever calls `close`.

    With `shared` all holders in one event loop use the same connections, which end a few seconds
    after the last of them; else this one has its own, with state that nobody else sees.

    Raises:
        RecipeError: two tools of one name, or an allowed tool that its server does not offer.
    """

    def __init__(self, servers: Sequence[McpServer], *, shared: bool = True) -> None:
        self.servers = tuple(servers)
        self._share = shared
        self._held: dict[str, McpConnection] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools, in order; the first time in a process it asks the servers, and blocks."""
        made: dict[str, Tool] = {}
        for server in self.servers:
            for tool in self._of(server, offered_tools(server)):
                if tool.name in made:
                    raise RecipeError(
                        f"{server.where}: a tool {tool.name!r} is there already: give a `prefix`"
                    )
                made[tool.name] = tool
        return tuple(made.values())

    async def close(self) -> None:
        """Let go of the connections; may be called twice, and the tools called again."""
        held, self._held = self._held, {}
        loop = asyncio.get_running_loop()
        for key, connection in held.items():
            if not self._share:
                await connection.close()
                continue
            known = _shared.get(loop, {})
            if key not in known or known[key][0] is not connection:
                continue
            known[key] = (connection, known[key][1] - 1)
            if known[key][1] == 0:
                loop.call_later(_LINGER_SECONDS, _end_unheld, loop, key, connection)

    def _of(self, server: McpServer, offered: Sequence[McpTool]) -> list[Tool]:
        names = [one.name for one in offered]
        for wanted in server.tools or ():
            if wanted not in names:
                raise RecipeError(
                    f"{server.where} offers no tool {wanted!r}. Its tools: {', '.join(names)}"
                )
        return [
            self._tool(server, one)
            for one in offered
            if server.tools is None or one.name in server.tools
        ]

    def _tool(self, server: McpServer, offered: McpTool) -> Tool:
        key = server.model_dump_json()

        async def call(**arguments: Any) -> str:
            return await self._connection(server, key).call(offered.name, arguments)

        try:
            return Tool.from_schema(
                call,
                name=server.prefix + _NOT_A_NAME.sub("_", offered.name),
                description=offered.description,
                parameters=offered.parameters,
                # A server that must be started first has its own time for that.
                timeout=server.timeout + server.start_seconds + _STOP_SECONDS,
                max_result_chars=server.max_result_chars,
            )
        except ContractError as error:
            raise EnvError(f"{server.where}: {error}") from error

    def _connection(self, server: McpServer, key: str) -> McpConnection:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._held = loop, {}
        if key not in self._held:
            connection = McpConnection(server)
            if self._share:
                known = _shared.setdefault(loop, {})
                connection, holders = known.get(key, (connection, 0))
                known[key] = (connection, holders + 1)
            self._held[key] = connection
        return self._held[key]


def _end_unheld(loop: asyncio.AbstractEventLoop, key: str, connection: McpConnection) -> None:
    known = _shared.get(loop, {})
    if known.get(key) == (connection, 0):
        del known[key]
        ending = loop.create_task(connection.close())
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)


def offered_tools(server: McpServer) -> tuple[McpTool, ...]:
    """What `server` offers; connects to it the first time in a process, and blocks meanwhile."""
    return _offered(server.model_dump_json())


@lru_cache(maxsize=64)
def _offered(told: str) -> tuple[McpTool, ...]:
    connection = McpConnection(McpServer.model_validate_json(told))

    async def ask() -> tuple[McpTool, ...]:
        try:
            return await connection.list_tools()
        finally:
            await connection.close()

    # In a thread with an event loop of its own: the caller may be inside of one.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, ask()).result()

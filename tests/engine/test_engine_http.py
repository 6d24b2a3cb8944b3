"""Requests over real sockets: connections that are kept, dropped, cancelled and go by a proxy."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agentrl.core.errors import EngineError
from agentrl.engine.http import ModelServer
from agentrl.engine.settings import ServerSettings

REPLY = json.dumps({"choices": [], "usage": {"total_tokens": 5}}).encode()


@dataclass
class Seen:
    """What a raw server met."""

    url: str = ""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)


Write = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]


def message(body: bytes = REPLY, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def raw(write: Write) -> AsyncIterator[Seen]:
    """A server that lets `write` answer the request of that number; it says whether to go on."""
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.heads.append(head)
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if not await write(writer, len(seen.heads)):
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield seen
    finally:
        server.close()


@asynccontextmanager
async def client(url: str, **settings: object) -> AsyncIterator[ModelServer]:
    server = ModelServer(ServerSettings(base_url=url, **({"backoff": 0.001} | settings)))
    await server.open()
    try:
        yield server
    finally:
        await server.close()


async def ask(server: ModelServer) -> dict[str, object]:
    return await server.post("/chat/completions", {"é": 1}, tokens=1)


async def plain(writer: asyncio.StreamWriter, number: int) -> bool:
    writer.write(message())
    return True


async def test_connections_are_kept_and_there_are_no_more_than_requests_at_once():
    async with raw(plain) as seen, client(seen.url, concurrency=4) as server:
        for _ in range(5):
            assert (await ask(server))["choices"] == []
        assert seen.connections == 1
        await asyncio.gather(*(ask(server) for _ in range(40)))
        assert seen.connections <= 4
    assert len(seen.heads) == 45


async def test_a_server_that_closes_idle_connections_costs_no_retry():
    async def once(writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(message())
        return False

    async with raw(once) as seen, client(seen.url, retries=0) as server:
        for _ in range(3):
            await ask(server)
            await asyncio.sleep(0.01)
        assert seen.connections == 3


async def test_a_request_that_is_cancelled_leaves_no_connection_behind():
    async def late(writer: asyncio.StreamWriter, number: int) -> bool:
        if number == 1:
            await asyncio.sleep(30)
        writer.write(message())
        return True

    async with raw(late) as seen, client(seen.url, concurrency=1) as server:
        hanging = asyncio.create_task(ask(server))
        while not seen.heads:
            await asyncio.sleep(0.001)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        await asyncio.wait_for(ask(server), 5)
        assert seen.connections == 2


async def test_a_reply_that_drips_for_ever_is_given_up():
    async def drip(writer: asyncio.StreamWriter, number: int) -> bool:
        if number > 1:
            writer.write(message())
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw(drip) as seen, client(seen.url, timeout=0.2) as server:
        assert (await asyncio.wait_for(ask(server), 5))["choices"] == []


async def test_compressed_and_chunked_replies_are_read():
    async def packed(writer: asyncio.StreamWriter, number: int) -> bool:
        if number == 1:
            writer.write(message(gzip.compress(REPLY), b"content-encoding: gzip"))
        else:
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(REPLY), REPLY)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
        return True

    async with raw(packed) as seen, client(seen.url) as server:
        assert [(await ask(server))["choices"] for _ in range(2)] == [[], []]


async def test_garbage_in_the_place_of_http_is_a_failure_that_says_so():
    async def garbage(writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        return False

    async with raw(garbage) as seen, client(seen.url, retries=1) as server:
        with pytest.raises(EngineError, match="failed 2 times; the last time: RemoteProtocolError"):
            await ask(server)


async def test_nobody_there_is_told():
    async with raw(plain) as seen:
        pass
    async with client(seen.url, retries=1) as server:
        with pytest.raises(EngineError, match="failed 2 times; the last time: ConnectError"):
            await ask(server)


async def test_a_server_that_moved_says_where_to():
    async def moved(writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(message(b"", b"location: https://new/v1", status=b"301 Moved Permanently"))
        return True

    async with raw(moved) as seen, client(seen.url) as server:
        with pytest.raises(EngineError, match=r"HTTP 301.*may have moved to https://new/v1"):
            await ask(server)
    assert len(seen.heads) == 1


async def test_headers_and_the_key_are_sent(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    async with raw(plain) as seen:
        monkeypatch.setenv("OTHER_KEY", "hidden")
        settings = {"api_key_env": "MY_KEY", "headers": {"X-Title": "us", "api-key": "$OTHER_KEY"}}
        async with client(seen.url, **settings) as server:
            await ask(server)
        own = {"Authorization": "Token other"}
        async with client(seen.url, headers=own, api_key_env="MY_KEY") as server:
            await ask(server)
    first, second = (head.lower() for head in seen.heads)
    assert b"authorization: bearer secret" in first
    assert b"x-title: us" in first
    assert b"api-key: hidden" in first
    assert b"content-type: application/json" in first
    assert second.count(b"authorization:") == 1
    assert b"authorization: token other" in second


async def test_requests_go_by_the_proxy_of_the_environment_unless_it_says_not_to(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with raw(plain) as seen:
        monkeypatch.setenv("http_proxy", seen.url.removesuffix("/v1"))
        async with client("http://models.invalid/v1") as server:
            await ask(server)
        assert seen.heads[0].startswith(b"POST http://models.invalid/v1/chat/completions HTTP/1.1")
        monkeypatch.setenv("no_proxy", "models.invalid")
        async with client("http://models.invalid/v1", retries=0) as server:
            with pytest.raises(EngineError, match="ConnectError"):
                await ask(server)
        assert len(seen.heads) == 1

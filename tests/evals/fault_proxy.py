"""A proxy before a completion server that fails, cuts and hangs some of the requests, by a seed."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import defaultdict

import httpx


class FaultProxy:
    """Forwards to `upstream`; of completions `fails` get a 500 or a reset, `hangs` no reply.

    `asked` are the seeds of all requests as they came, `told` the tokens that were delivered for
    each seed, `faults` how often what was done. A request's seed names the turn of a sample.
    """

    def __init__(self, upstream: str, *, fails: float, hangs: float, seed: int = 0) -> None:
        self.upstream, self.fails, self.hangs = upstream, fails, hangs
        self.asked: list[int] = []
        self.told: dict[int, list[list[int]]] = defaultdict(list)
        self.faults: dict[str, int] = defaultdict(int)
        self.port = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        limits = httpx.Limits(max_connections=256)
        async with httpx.AsyncClient(timeout=120, limits=limits) as self._client:
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 22)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                sizes = [
                    int(line[15:])
                    for line in head.lower().split("\r\n")
                    if line.startswith("content-length:")
                ]
                body = await reader.readexactly(sizes[0] if sizes else 0)
                if not await self._answer(method, path, body, writer):
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError, httpx.HTTPError):
            return  # one side is gone: the client was killed, or the test is over
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _answer(
        self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """False when the connection is to be cut."""
        seed = json.loads(body)["seed"] if body else None
        drawn = self._rng.random()
        if seed is not None:
            self.asked.append(seed)
        if seed is not None and drawn < self.fails:
            kind = "reset" if drawn < self.fails / 2 else "500"
            self.faults[kind] += 1
            if kind == "500":
                await _reply(writer, 500, b'{"error": "a fault"}')
            return kind == "500"
        if seed is not None and drawn < self.fails + self.hangs:
            self.faults["hang"] += 1
            await asyncio.sleep(600)
        found = await self._client.request(
            method, self.upstream + path.removeprefix("/v1"), content=body,
            headers={"content-type": "application/json"},
        )  # fmt: skip
        await _reply(writer, found.status_code, found.content)
        if seed is not None and found.status_code == 200:
            self.told[seed].append(found.json()["choices"][0]["token_ids"])
        return True


async def _reply(writer: asyncio.StreamWriter, status: int, content: bytes) -> None:
    head = ("content-type: application/json", f"content-length: {len(content)}", "", "")
    writer.write("\r\n".join((f"HTTP/1.1 {status} -", *head)).encode() + content)
    await writer.drain()

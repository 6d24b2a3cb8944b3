"""Engines of the rollout benchmark: one in process, and one behind HTTP with its server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from agentrl.core.types import Float32, Int32
from agentrl.engine.base import Completion, Sampling


class InstantEngine:
    """Answers at once with the same tokens."""

    version = 0

    def __init__(self, token_ids: Int32) -> None:
        values = np.full(len(token_ids), 0.5, np.float32)
        self.completion = Completion(
            token_ids=token_ids,
            logprobs=-values,
            entropies=values,
            entropy_kind="exact",
            finish_reason="stop",
            policy_version=0,
            prefilled_tokens=0,
            seconds=0.0,
        )

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def load(self, weights: Path, version: int) -> None:
        """Nothing to load."""

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Zeros."""
        return np.zeros(len(token_ids) - 1, np.float32)

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """The same completion."""
        return self.completion


class _Wire(asyncio.Protocol):
    """One keep-alive HTTP connection of the client: a request at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.answer: asyncio.Future[bytes] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        body = _body(self.buffer)
        if body is not None and self.answer is not None:
            self.buffer.clear()
            self.answer.set_result(body)


def _body(buffer: bytearray) -> bytes | None:
    """The body of the HTTP message in `buffer`, or None while it is incomplete."""
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return None
    at = buffer.find(b"Content-Length: ") + 16
    size = int(buffer[at : buffer.find(b"\r\n", at)])
    body = bytes(buffer[head + 4 :])
    return body if len(body) >= size else None


class HttpEngine(InstantEngine):
    """Asks a completion server of this machine over pooled connections."""

    def __init__(self, token_ids: Int32, port: int) -> None:
        super().__init__(token_ids)
        self.port = port
        self.idle: list[_Wire] = []

    async def ask(self, body: bytes) -> bytes:
        """One POST."""
        loop = asyncio.get_running_loop()
        if self.idle:
            wire = self.idle.pop()
        else:
            _, wire = await loop.create_connection(_Wire, "127.0.0.1", self.port)
        wire.answer = loop.create_future()
        assert wire.transport is not None
        wire.transport.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        answer = await wire.answer
        self.idle.append(wire)
        return answer

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """What the server answers."""
        prompt = np.asarray(prompt_ids).tolist()
        request = {"prompt": prompt, "max_tokens": sampling.max_tokens, "seed": sampling.seed}
        answer = json.loads(await self.ask(json.dumps(request).encode()))
        return Completion(
            token_ids=np.asarray(answer["token_ids"], np.int32),
            logprobs=np.asarray(answer["logprobs"], np.float32),
            entropies=np.asarray(answer["entropies"], np.float32),
            entropy_kind="exact",
            finish_reason="stop",
            policy_version=0,
            prefilled_tokens=0,
            seconds=0.0,
        )


class _Server(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if _body(self.buffer) is not None:
            self.buffer.clear()
            self.transport.write(self.answer)


def serve(pipe: Connection, token_ids: list[int]) -> None:
    """A completion server that answers at once, until it is terminated."""
    values = [0.5] * len(token_ids)
    record = {"token_ids": token_ids, "logprobs": [-0.5] * len(token_ids), "entropies": values}
    body = json.dumps(record).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Server(answer), "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())

"""A chat server of this process that repeats what it was asked to say, and fails on purpose."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

FAILURES = ("status", "busy", "html", "cut", "half")


@dataclass
class HostileChat:
    """Fails `failing` of its requests and hangs on `hanging` of them, by chance of `seed`.

    It answers the last word of the last message, or the SHA-256 of its picture; with tools it
    calls the first for the word that the user said last, and then says what it was told. One that
    asks to say "never" fails always.
    """

    failing: float = 0.1
    hanging: float = 0.02
    seed: int = 0
    url: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, object]] = field(default_factory=list)

    def app(self) -> Starlette:
        """The server as an ASGI application."""
        chance = random.Random(self.seed)

        async def chat(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            asked = body["messages"][-1]["content"]
            word = _picture(asked[-1]) if isinstance(asked, list) else asked.split()[-1]
            drawn = chance.random()
            if word == "never":
                kind = "status"
            elif drawn < self.hanging:
                kind = "hang"
            else:
                kind = chance.choice(FAILURES) if drawn < self.hanging + self.failing else "fine"
            self.seen[kind] += 1
            message: dict[str, object] = {"role": "assistant", "content": word}
            if "tools" in body and body["messages"][-1]["role"] == "user":
                called = body["tools"][0]["function"]["name"]
                function = {"name": called, "arguments": json.dumps({"query": word})}
                message = {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call-1", "type": "function", "function": function}],
                }
            return await self._answer(kind, message)

        async def models(request: Request) -> Response:
            return JSONResponse({"data": [{"id": "echo"}]})

        return Starlette(
            routes=[
                Route("/v1/chat/completions", chat, methods=["POST"]),
                Route("/v1/models", models),
            ]
        )

    async def _answer(self, kind: str, message: dict[str, object]) -> Response:
        whole = {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
        }
        if kind == "hang":
            await asyncio.sleep(20)
        if kind == "status":
            return Response("overloaded", status_code=503)
        if kind == "busy":
            return Response("slow down", status_code=429, headers={"retry-after": "0.02"})
        if kind == "html":
            return HTMLResponse("<html>gateway</html>")
        if kind == "cut":
            return Response(json.dumps(whole)[:-30], media_type="application/json")
        if kind == "half":

            async def half() -> AsyncIterator[bytes]:
                yield json.dumps(whole).encode()[:40]

            return StreamingResponse(half(), headers={"content-length": "400"})
        return JSONResponse(whole)


def _picture(part: dict[str, dict[str, str]]) -> str:
    data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def hostile(**chances: float) -> Iterator[HostileChat]:
    """A running server on this machine."""
    chat = HostileChat(**chances)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            chat.app(), log_level="critical", timeout_graceful_shutdown=0, lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 10
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert server.started
        chat.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        try:
            yield chat
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()

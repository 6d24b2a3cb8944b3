"""Serves the viewer on this machine: the page, and the data of what is looked at."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agentrl.view.chunk import Shown, tokens_chunk
from agentrl.view.index import Indexer, metrics_data
from agentrl.view.page import compact, image_files, media_type, page, title_of
from agentrl.view.read import Part, Source

_PARTS_KEPT = 4
_NAMES = ["127.0.0.1", "localhost", "[::1]"]


class Viewer:
    """The sources of a server: their indexes, and the parts that were read last."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        tokenizer: str = "",
        token: str = "",
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Reads every part of `sources` once, for the index."""
        self.sources = list(sources)
        self.token = token or secrets.token_urlsafe(12)
        self.indexers = [Indexer(source, tokenizer=tokenizer) for source in sources]
        for indexer in self.indexers:
            for chunk, _ in indexer.read():
                progress(f"{indexer.source.name}: {chunk.part.label}")
        self._page = page(title=title_of(sources), sources=len(sources), served=True)
        self._kept: OrderedDict[tuple[int, Part], list[list[Shown]]] = OrderedDict()
        self._lock = asyncio.Lock()

    def app(self, *, local: bool = True) -> ASGIApp:
        """The application; its addresses start with the token.

        `local`: only requests for this machine by its own name are answered, so that no page of
        another site can reach the server under a name of its own.
        """
        root = "/{token}"
        routes = [
            Route(f"{root}/", self._show),
            Route(f"{root}/data/{{source:int}}/{{name}}", self._data),
            Route(f"{root}/data/{{source:int}}/{{name}}/{{which}}", self._data),
        ]
        app: ASGIApp = GZipMiddleware(Starlette(routes=routes), 65_536, compresslevel=1)
        return TrustedHostMiddleware(app, allowed_hosts=_NAMES) if local else app

    def _refused(self, request: Request) -> Response | None:
        if hmac.compare_digest(request.path_params["token"], self.token):
            return None
        return PlainTextResponse("not found", 404)

    async def _show(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        made = self._page
        text = made.head + made.tail.replace("{{later}}", "")
        headers = {
            "Content-Security-Policy": made.policy + "; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return Response(text, media_type="text/html", headers=headers)

    async def _data(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        params = request.path_params
        number, name, which = params["source"], params["name"], params.get("which", "")
        if number >= len(self.indexers):
            return PlainTextResponse("no such source", 404)
        async with self._lock:  # Parts are read one at a time: several would only share a disk.
            body = await asyncio.to_thread(self.body, number, name, which)
        if body is None:
            return PlainTextResponse(f"there is no {name} {which}", 404)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return Response(body, media_type="application/octet-stream", headers=headers)

    def body(self, number: int, name: str, which: str) -> bytes | None:
        """The bytes of one thing that the page asks for; None where there is none."""
        indexer = self.indexers[number]
        if name == "index":
            return compact(indexer.data()).encode()
        if name == "metrics":
            return compact(metrics_data(indexer.source)).encode()
        if name == "pieces" and indexer.vocabulary is not None:
            size = len(indexer.vocabulary)
            return compact(indexer.vocabulary.pieces(range(size))).encode()
        if name == "image":
            path = image_files(indexer.source).get(which)
            raw = path.read_bytes() if path else b""
            return raw if media_type(raw) else None
        if name not in ("turns", "tokens") or not which.isdecimal():
            return None
        groups = self._groups(number, int(which))
        if groups is None:
            return None
        if name == "tokens" and indexer.source.speaks_text:
            return None
        if name == "tokens":
            return compact(tokens_chunk(groups)).encode()
        return compact(indexer.turns(groups)).encode()

    def _groups(self, number: int, which: int) -> list[list[Shown]] | None:
        indexer = self.indexers[number]
        if which >= len(indexer.chunks):
            return None
        chunk = indexer.chunks[which]
        key = (number, chunk.part)
        if key not in self._kept:
            loaded = indexer.load(chunk.part)
            if loaded is None:
                return None
            self._kept[key] = loaded
            while len(self._kept) > _PARTS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][chunk.start : chunk.stop]

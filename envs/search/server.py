"""A retrieval server that speaks Search-R1's protocol over an index (arXiv:2503.09516).

`POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}` answers
`{"result": [[{"document": {"id", "contents"}, "score"}]]}`, without scores the documents alone.
`GET /health` tells how many passages there are. A request that is wrong gets 400, 413 or 422 and
`{"detail": what is wrong}`.
"""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentrl.core.errors import nearest
from agentrl.core.retrieval import Hit

from .dense import PassageIndex
from .sources import join_contents

MAX_QUERIES = 4096
MAX_TOPK = 1000
MAX_BYTES = 16 * 2**20
_KEYS = ("queries", "topk", "return_scores")


class _Refusal(Exception):
    """A request that is wrong: its status and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class _Wanted(NamedTuple):
    queries: list[str]
    topk: int
    scores: bool


def retrieval_app(index: PassageIndex, *, topk: int = 3) -> Starlette:
    """The server as an ASGI application; `topk` is used where a request names none."""

    async def retrieve(request: Request) -> JSONResponse:
        try:
            wanted = _wanted(await _body(request), topk)
        except _Refusal as refusal:
            return JSONResponse({"detail": refusal.detail}, refusal.status)
        found = await asyncio.to_thread(index.search, wanted.queries, wanted.topk)
        return JSONResponse(
            {"result": [[_shown(hit, wanted.scores) for hit in hits] for hits in found]}
        )

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "passages": len(index), "topk": topk})

    return Starlette(
        routes=[
            Route("/retrieve", retrieve, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ]
    )


def _shown(hit: Hit, scores: bool) -> dict[str, object]:
    document: dict[str, object] = {"id": hit.id, "contents": join_contents(hit.title, hit.text)}
    return {"document": document, "score": hit.score} if scores else document


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BYTES:
            raise _Refusal(413, f"the request is larger than {MAX_BYTES} bytes: split the queries")
        pieces.append(piece)
    return b"".join(pieces)


def _wanted(content: bytes, topk: int) -> _Wanted:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _Refusal(400, f"the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _Refusal(422, f"the request must be an object, got {_brief(body)}")
    for key in body:
        if key not in _KEYS:
            hint = nearest(key, _KEYS)
            raise _Refusal(422, f"unknown key {key!r}.{hint} Known: {', '.join(_KEYS)}")
    queries = body.get("queries")
    if not isinstance(queries, list) or not queries:
        raise _Refusal(422, f"'queries' must be a list of at least one text, got {_brief(queries)}")
    if len(queries) > MAX_QUERIES:
        raise _Refusal(413, f"{len(queries)} queries are more than the {MAX_QUERIES} allowed")
    for place, query in enumerate(queries):
        if not isinstance(query, str):
            raise _Refusal(422, f"queries[{place}] must be text, got {_brief(query)}")
    wanted = body.get("topk", topk)
    wanted = topk if wanted is None else wanted
    if type(wanted) is not int or not 1 <= wanted <= MAX_TOPK:
        raise _Refusal(
            422, f"'topk' must be a whole number from 1 to {MAX_TOPK}, got {_brief(wanted)}"
        )
    scores = body.get("return_scores", False)
    if not isinstance(scores, bool):
        raise _Refusal(422, f"'return_scores' must be true or false, got {_brief(scores)}")
    return _Wanted(queries, wanted, scores)


def _brief(value: object) -> str:
    return json.dumps(value)[:60]

"""Retrievers: an index in this process, and a client of a Search-R1 retrieval server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import httpx

from agentrl.core.errors import EnvError
from agentrl.core.retrieval import Hit

from .dense import PassageIndex
from .index import Bm25Index
from .sources import split_contents

_INLINE_PASSAGES = 200_000
"""Up to this many passages a search takes less time than handing it to a thread and back."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class IndexRetriever:
    """Searches an index that `load` gives, once, outside the event loop."""

    def __init__(self, load: Callable[[], Bm25Index]) -> None:
        self._load = load
        self._index: Bm25Index | None = None

    @property
    def index(self) -> Bm25Index:
        """The index; blocks while it is loaded."""
        if self._index is None:
            index = self._load()
            # The first search compiles, which should not happen in the middle of an episode.
            index.search(["warm up"], 1)
            self._index = index
        return self._index

    async def start(self) -> None:
        """Load the index."""
        if self._index is None:
            await asyncio.to_thread(lambda: self.index)

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        """The up to `k` best passages of the index."""
        await self.start()
        index = self.index
        if len(index) <= _INLINE_PASSAGES:
            return index.search([query], k)[0]
        return (await asyncio.to_thread(index.search, [query], k))[0]


class _Asked(NamedTuple):
    query: str
    k: int
    answer: asyncio.Future[list[Hit]]


class BatchedRetriever:
    """Searches an index that is slow for one query and quick for many, such as one of embeddings.

    While a search runs in a thread, queries gather for the next one. May be used from one event
    loop after another.
    """

    def __init__(self, load: Callable[[], PassageIndex]) -> None:
        self._load = load
        self._index: PassageIndex | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[_Asked] = []
        self._searcher: asyncio.Task[None] | None = None

    @property
    def index(self) -> PassageIndex:
        """The index; blocks while it is loaded."""
        if self._index is None:
            self._index = self._load()
        return self._index

    async def start(self) -> None:
        """Load the index."""
        if self._index is None:
            await asyncio.to_thread(lambda: self.index)

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        """The up to `k` best passages of the index."""
        await self.start()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._waiting, self._searcher = loop, [], None
        asked = _Asked(query, k, loop.create_future())
        self._waiting.append(asked)
        if self._searcher is None or self._searcher.done():
            self._searcher = loop.create_task(self._search())
        return await asked.answer

    async def _search(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            depth = max(asked.k for asked in batch)
            queries = [asked.query for asked in batch]
            try:
                found = await asyncio.to_thread(self.index.search, queries, depth)
            except Exception as error:
                # Every asker must hear of it, or it would wait for ever.
                for asked in batch:
                    if not asked.answer.done():
                        asked.answer.set_exception(EnvError(f"the index failed: {error!r}"))
                continue
            for asked, hits in zip(batch, found, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(hits[: asked.k])


class HttpRetriever:
    """Asks a server that speaks Search-R1's protocol, `POST /retrieve`.

    Queries that are asked at the same time travel together, at most `batch` in a request and
    `connections` requests at a time. A request that cannot be sent, or that the server is too
    busy for, is repeated `retries` times after `backoff`, twice `backoff`, ... seconds; each may
    take `timeout` seconds. May be used from one event loop after another.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 20.0,
        retries: int = 3,
        backoff: float = 0.25,
        batch: int = 64,
        connections: int = 4,
    ) -> None:
        url = url.rstrip("/")
        self.url = url if url.endswith("/retrieve") else f"{url}/retrieve"
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._batch = batch
        self._connections = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._waiting: list[_Asked] = []
        self._senders: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing: the connection is opened by the first search."""

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        """The up to `k` best passages that the server finds.

        Raises:
            EnvError: the server cannot be reached, refuses, or does not answer as it should.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections and waiting queries belong to the loop that they were made in.
            self._loop, self._client = loop, None
            self._waiting, self._senders = [], set()
        asked = _Asked(query, k, loop.create_future())
        self._waiting.append(asked)
        if len(self._senders) < self._connections:
            sender = loop.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await asked.answer

    async def close(self) -> None:
        """Close the connections of this event loop; may be called twice."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _send(self) -> None:
        """Send what waits until nothing does."""
        # One round of the loop, so that queries asked at the same time are here already.
        await asyncio.sleep(0)
        while self._waiting:
            k = self._waiting[0].k
            batch = [asked for asked in self._waiting if asked.k == k][: self._batch]
            taken = {id(asked) for asked in batch}
            self._waiting = [asked for asked in self._waiting if id(asked) not in taken]
            try:
                found = await self._ask([asked.query for asked in batch], k)
            except Exception as error:
                # Every asker must hear of it, whatever it is, or it would wait for ever.
                said = str(error) if isinstance(error, EnvError) else f"retriever: {error!r}"
                for asked in batch:
                    if not asked.answer.done():
                        asked.answer.set_exception(EnvError(said))
                continue
            for asked, hits in zip(batch, found, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(hits)

    async def _ask(self, queries: list[str], k: int) -> list[list[Hit]]:
        body = {"queries": queries, "topk": k, "return_scores": True}
        response = await self._post(body)
        if response.status_code != 200:
            said = response.text[:200]
            raise EnvError(f"retriever {self.url}: status {response.status_code}: {said}")
        return read_reply(response.content, url=self.url, queries=len(queries))

    async def _post(self, body: dict[str, object]) -> httpx.Response:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._timeout)
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = await self._client.post(self.url, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if last or not isinstance(error, httpx.TransportError):
                    said = str(error) or type(error).__name__
                    raise EnvError(
                        f"retriever {self.url}: no answer after {attempt + 1} attempts: {said}. "
                        "Is `agentrl serve retriever` or Search-R1's server running there?"
                    ) from error
            else:
                if last or response.status_code not in _RETRIED:
                    return response
            await asyncio.sleep(self._backoff * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def read_reply(content: bytes, *, url: str, queries: int) -> list[list[Hit]]:
    """The hits of each query in a reply of the protocol.

    Raises:
        EnvError: naming the place in the reply and what was found there.
    """
    reply = _Reader(f"retriever {url}")
    try:
        body = json.loads(content)
    except ValueError as error:
        start = content[:80].decode(errors="replace")
        raise EnvError(f"retriever {url}: the reply is not JSON: {start!r}") from error
    rows = reply.items(reply.field(body, "result", "reply"), "result")
    if len(rows) != queries:
        raise EnvError(f"retriever {url}: {queries} queries were asked, {len(rows)} answered")
    found = []
    for row, given in enumerate(rows):
        hits = []
        for column, item in enumerate(reply.items(given, f"result[{row}]")):
            where = f"result[{row}][{column}]"
            document = reply.field(item, "document", where)
            id_ = reply.field(document, "id", f"{where}.document")
            contents = reply.field(document, "contents", f"{where}.document")
            score = reply.field(item, "score", where)
            if not isinstance(contents, str):
                raise reply.wrong(f"{where}.document.contents", "text", contents)
            if not isinstance(score, int | float) or isinstance(score, bool):
                raise reply.wrong(f"{where}.score", "a number", score)
            hits.append(Hit(str(id_), *split_contents(contents), float(score)))
        found.append(hits)
    return found


class _Reader(NamedTuple):
    """Takes JSON apart with errors that name the place."""

    who: str

    def wrong(self, where: str, expected: str, found: object) -> EnvError:
        shown = json.dumps(found)[:80]
        return EnvError(f"{self.who}: {where} should be {expected}, got {shown}")

    def field(self, value: object, key: str, where: str) -> object:
        if not isinstance(value, dict):
            raise self.wrong(where, "an object", value)
        if key not in value:
            raise EnvError(f"{self.who}: {where} has no {key!r}, its keys are {list(value)[:8]}")
        found: object = value[key]
        return found

    def items(self, value: object, where: str) -> list[object]:
        if not isinstance(value, list):
            raise self.wrong(where, "a list", value)
        return value

"""Web search behind one interface: the common APIs as a retriever, cached and repeated politely."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import httpx
from pydantic import Field

from agentrl.core.errors import EnvError, SetupError
from agentrl.core.retrieval import Hit
from agentrl.core.settings import Settings

from .disk_cache import DiskCache

ProviderName: TypeAlias = Literal["brave", "searxng", "serpapi", "serper", "tavily"]

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebSearchSettings(Settings):
    """Which search API is asked, and how.

    The key is read from the environment variable `api_key_env` (by default the provider's usual
    name); searxng, which one runs oneself, has none and needs `base_url`. At most `per_second`
    requests start in a second; a request may take `timeout` seconds and is repeated `retries`
    times after `backoff`, twice `backoff`, ... seconds. With `cache` (a folder) each query is asked
    once in `cache_seconds`.
    """

    provider: ProviderName
    api_key_env: str = ""
    base_url: str = ""
    timeout: float = Field(default=20.0, gt=0.0)
    retries: int = Field(default=3, ge=0)
    backoff: float = Field(default=0.5, gt=0.0)
    per_second: float = Field(default=10.0, gt=0.0)
    cache: str = ""
    cache_seconds: float | None = Field(default=None, gt=0.0)


class _Call(NamedTuple):
    """An HTTP request of a provider."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    parameters: Mapping[str, str | int] = {}
    body: Mapping[str, str | int] | None = None


class _Provider(NamedTuple):
    """An API: where it is, its key's usual name, how it is asked and where its answers stand.

    `results` is the path of keys to the list of results; `fields` the keys of a result's title,
    address and text.
    """

    base_url: str
    api_key_env: str
    call: Callable[[str, int, str], _Call]
    results: tuple[str, ...]
    fields: tuple[str, str, str]


def _brave(query: str, k: int, key: str) -> _Call:
    headers = {"X-Subscription-Token": key, "Accept": "application/json"}
    return _Call("GET", "/res/v1/web/search", headers, {"q": query, "count": min(k, 20)})


def _searxng(query: str, k: int, key: str) -> _Call:
    return _Call("GET", "/search", {}, {"q": query, "format": "json"})


def _serpapi(query: str, k: int, key: str) -> _Call:
    parameters: Mapping[str, str | int] = {"engine": "google", "q": query, "num": k, "api_key": key}
    return _Call("GET", "/search.json", {}, parameters)


def _serper(query: str, k: int, key: str) -> _Call:
    return _Call("POST", "/search", {"X-API-KEY": key}, {}, {"q": query, "num": k})


def _tavily(query: str, k: int, key: str) -> _Call:
    headers = {"Authorization": f"Bearer {key}"}
    return _Call("POST", "/search", headers, {}, {"query": query, "max_results": min(k, 20)})


PROVIDERS: Mapping[ProviderName, _Provider] = {
    "brave": _Provider(
        "https://api.search.brave.com",
        "BRAVE_API_KEY",
        _brave,
        ("web", "results"),
        ("title", "url", "description"),
    ),
    "searxng": _Provider("", "", _searxng, ("results",), ("title", "url", "content")),
    "serpapi": _Provider(
        "https://serpapi.com",
        "SERPAPI_API_KEY",
        _serpapi,
        ("organic_results",),
        ("title", "link", "snippet"),
    ),
    "serper": _Provider(
        "https://google.serper.dev",
        "SERPER_API_KEY",
        _serper,
        ("organic",),
        ("title", "link", "snippet"),
    ),
    "tavily": _Provider(
        "https://api.tavily.com",
        "TAVILY_API_KEY",
        _tavily,
        ("results",),
        ("title", "url", "content"),
    ),
}
"""The known APIs; a new one is added here."""


class WebRetriever:
    """A web search API as a `Retriever`: a hit's id is its address, its text address and snippet.

    May be used from one event loop after another.
    """

    def __init__(self, settings: WebSearchSettings) -> None:
        self.settings = settings
        self._provider = PROVIDERS[settings.provider]
        self._cache = (
            DiskCache(settings.cache, max_age=settings.cache_seconds) if settings.cache else None
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._next = 0.0

    async def start(self) -> None:
        """Check that there is a key and an address.

        Raises:
            SetupError: naming what is missing.
        """
        self._key()
        if not self._base_url():
            raise SetupError(f"{self.settings.provider} has no address of its own: give base_url")

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        """The up to `k` best pages, best first.

        Raises:
            EnvError: the API cannot be reached, refuses, or does not answer as it should.
        """
        name = f"{self.settings.provider} {self._base_url()} {k} {query}"
        content = self._cache.get(name) if self._cache is not None else None
        if content is None:
            await self.start()
            content = await self._ask(self._provider.call(query, k, self._key()))
            hits = self._hits(content, k)
            if self._cache is not None:
                self._cache.put(name, content)
            return hits
        return self._hits(content, k)

    async def close(self) -> None:
        """Close the connections of this event loop; may be called twice."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    def _base_url(self) -> str:
        return (self.settings.base_url or self._provider.base_url).rstrip("/")

    def _key(self) -> str:
        variable = self.settings.api_key_env or self._provider.api_key_env
        if not variable:
            return ""
        key = os.environ.get(variable, "")
        if not key:
            raise SetupError(
                f"web search by {self.settings.provider} needs a key in the environment variable "
                f"{variable}"
            )
        return key

    async def _ask(self, call: _Call) -> bytes:
        url = self._base_url() + call.path
        who = f"{self.settings.provider} ({self._base_url()})"
        for attempt in range(self.settings.retries + 1):
            last = attempt == self.settings.retries
            pause = self.settings.backoff * 2**attempt
            await self._turn()
            try:
                response = await self._open().request(
                    call.method,
                    url,
                    headers=dict(call.headers),
                    params=dict(call.parameters),
                    json=None if call.body is None else dict(call.body),
                )
            except httpx.HTTPError as error:
                if last or not isinstance(error, httpx.TransportError):
                    # Never the URL: a provider may want the key in it.
                    said = type(error).__name__
                    raise EnvError(
                        f"{who}: no answer after {attempt + 1} attempts: {said}"
                    ) from None
            else:
                if response.status_code == 200:
                    return response.content
                if last or response.status_code not in _RETRIED:
                    said = response.text[:200]
                    raise EnvError(f"{who}: status {response.status_code}: {said}")
                pause = max(pause, _retry_after(response))
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _turn(self) -> None:
        """Wait until the next request may start."""
        now = asyncio.get_running_loop().time()
        begin = max(now, self._next)
        self._next = begin + 1 / self.settings.per_second
        await asyncio.sleep(begin - now)

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections belong to the loop that they were made in.
            self._loop, self._client = loop, httpx.AsyncClient(timeout=self.settings.timeout)
        return self._client

    def _hits(self, content: bytes, k: int) -> list[Hit]:
        who = f"{self.settings.provider}"
        try:
            found = json.loads(content)
        except ValueError as error:
            start = content[:80].decode(errors="replace")
            raise EnvError(f"{who}: the reply is not JSON: {start!r}") from error
        if not isinstance(found, dict):
            raise EnvError(f"{who}: the reply should be an object, got {content[:80]!r}")
        for key in self._provider.results:
            # Where nothing was found, the keys are left out.
            found = found.get(key, {}) if isinstance(found, dict) else {}
        rows = found or []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            path = ".".join(self._provider.results)
            raise EnvError(f"{who}: {path} should be a list of objects, got {str(rows)[:80]}")
        title, address, text = self._provider.fields
        hits = []
        for place, row in enumerate(rows[:k]):
            url = str(row.get(address) or "")
            if url:
                said = f"{url} {row.get(text) or ''}".strip()
                hits.append(Hit(url, str(row.get(title) or ""), said, 1.0 / (place + 1)))
        return hits


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() else 0.0

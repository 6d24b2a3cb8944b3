"""Requests to a model server: connections, retries, deadlines, rate limits, errors that say why."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from agentrl.core.errors import ContextLengthError, EngineError
from agentrl.engine.rate import Asked, Pace
from agentrl.engine.settings import ServerSettings

SHOWN = 300
"""Characters of a reply that an error quotes."""

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531)})
_CONTEXT_IS_FULL = re.compile(
    r"context[ _](?:length|window)|prompt is too long|too many tokens|longer than the maximum"
    r"|maximum (?:number of )?(?:input )?tokens|max_model_len",
    re.IGNORECASE,
)
_CONNECT_SECONDS = 30.0


class RefusedError(EngineError):
    """The server understood a request and will not do it; `body` is what it said."""

    def __init__(self, message: str, status: int = 0, body: str = "") -> None:
        super().__init__(message)
        self.status, self.body = status, body


@dataclass(slots=True)
class _Admission:
    server: ModelServer
    asked: Asked | None  # None once a request has used it


_ADMISSION: ContextVar[_Admission | None] = ContextVar("agentrl_admission", default=None)


class ModelServer:
    """`POST {base_url}{path}`, as often as the server allows, again after failures that pass.

    What passes: a lost connection, a hang past `settings.timeout`, a status of 408, 409, 425, 429,
    500, 502 to 504 or 520 to 530, and a reply that is no JSON. Waits double, and up to a quarter is
    added by chance, or they are what a Retry-After header asks for. A 429 with that header holds
    back every request of this server; 429s are no failures and are tried again for
    `settings.patience` seconds.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._given = transport
        self._transport: httpx.AsyncBaseTransport | None = None
        self._headers = httpx.Headers()
        self._turnstile = asyncio.Semaphore(settings.concurrency)
        self._pace = pace or Pace(settings.requests_per_minute, settings.tokens_per_minute)
        self._chance = random.Random(0)

    async def open(self) -> None:
        """Prepare connections; the server is first met by a request."""
        await self.close()
        settings = self._settings
        url = httpx.URL(settings.base_url)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": "agentrl",
            "Content-Type": "application/json",
        }
        if key := os.environ.get(settings.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        own = {name: os.path.expandvars(value) for name, value in settings.headers.items()}
        self._headers = httpx.Headers({**headers, **own})
        self._transport = self._given or OneRequestEach(url)

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    @asynccontextmanager
    async def admission(self, tokens: int) -> AsyncIterator[None]:
        """Entered when a request of about `tokens` may be sent: inside, `post` does not wait."""
        async with self._turnstile:
            asked = await self._pace.admit(tokens)
            before = _ADMISSION.set(_Admission(self, asked))
            try:
                yield
            finally:
                _ADMISSION.reset(before)

    async def post(self, path: str, body: Mapping[str, object], *, tokens: int) -> dict[str, Any]:
        """The JSON object that the server answers; `tokens` is about what the request costs.

        Raises:
            EngineError: it refused, or failed on every attempt.
            ContextLengthError: the request has more tokens than the model takes.
        """
        admission = _ADMISSION.get()
        if admission is None or admission.server is not self:
            async with self.admission(tokens):
                return await self.post(path, body, tokens=tokens)
        asked, admission.asked = admission.asked, None
        return await self._insist(path, body, tokens, asked or await self._pace.admit(tokens))

    async def _insist(
        self, path: str, body: Mapping[str, object], tokens: int, asked: Asked
    ) -> dict[str, Any]:
        settings, loop = self._settings, asyncio.get_running_loop()
        url = httpx.URL(settings.base_url.rstrip("/") + path)
        content = json.dumps(body, separators=(",", ":")).encode()
        give_up_at = loop.time() + settings.patience
        failed = turned_away = 0
        while True:
            trouble, reply, status, wanted = await self._try(url, content)
            if reply is not None:
                self._pace.correct(asked, _tokens_of(reply, tokens))
                return reply
            if status:  # one that hung may have been charged for
                self._pace.correct(asked, 0)
            pause = self._pause(failed + turned_away, wanted)
            if status == 429:
                turned_away += 1
                if wanted is not None:
                    self._pace.hold(pause)
            else:
                failed += 1
            impatient = status == 429 and loop.time() + pause > give_up_at
            if failed > settings.retries or impatient:
                times = failed + turned_away
                raise EngineError(f"{url} failed {times} times; the last time: {trouble}")
            await asyncio.sleep(pause)
            asked = await self._pace.admit(tokens)

    async def _try(
        self, url: httpx.URL, content: bytes
    ) -> tuple[str, dict[str, Any] | None, int, float | None]:
        """One attempt: what went wrong, the reply if nothing did, its status, its Retry-After."""
        transport = self._transport
        if transport is None:
            raise EngineError("the engine was closed, or not started; call start()")
        # Straight to the transport: a client's redirects, cookies and merging of addresses cost a
        # tenth of a millisecond, and a server of models needs none of them.
        request = httpx.Request(
            "POST",
            url,
            headers=self._headers,
            content=content,
            extensions={"timeout": {"connect": _CONNECT_SECONDS}},
        )
        try:
            async with asyncio.timeout(self._settings.timeout):
                response = await transport.handle_async_request(request)
                await response.aread()
        except TimeoutError:
            return f"no answer within {self._settings.timeout:g} s", None, 0, None
        except (httpx.TransportError, httpx.DecodingError) as error:
            return f"{type(error).__name__}: {error}", None, 0, None
        status = response.status_code
        if status == 200:
            trouble, reply = _object(response)
            return trouble, reply, status, None
        trouble = f"HTTP {status}: {response.text[:SHOWN]!r}"
        if status in _PASSING:
            return trouble, None, status, _retry_after(response)
        if status in (400, 413, 422) and _CONTEXT_IS_FULL.search(response.text):
            raise ContextLengthError(f"{url} takes no longer context: {trouble}")
        said = f"{url} refused the request: {trouble}{self._hint(response)}"
        raise RefusedError(said, status, response.text)

    def _pause(self, attempt: int, wanted: float | None) -> float:
        """Seconds to wait: what the server asked for, or twice as long each time."""
        settings = self._settings
        if wanted is not None:
            return min(max(wanted, 0.0), settings.patience)
        doubled = min(settings.backoff * 2.0 ** min(attempt, 60), settings.max_backoff)
        return doubled * (1.0 + self._chance.random() / 4)

    def _hint(self, response: httpx.Response) -> str:
        if response.status_code in (401, 403):
            name = self._settings.api_key_env
            state = "is set" if os.environ.get(name) else "is not set"
            return f" (the key is read from {name}, which {state})"
        if response.is_redirect:
            return f" (engine.base_url may have moved to {response.headers.get('location')})"
        return ""


class OneRequestEach(httpx.AsyncBaseTransport):
    """Keep-alive connections with a pool for each, since one pool of many is slow.

    A pool of httpcore looks at all its connections and requests whenever one of them changes:
    with 256 at a time 1,024 requests cost 7 s of processor time, here 0.6 s. The caller bounds
    how many requests are under way.
    """

    def __init__(self, url: httpx.URL) -> None:
        """The server's address decides on encryption and proxy (`HTTPS_PROXY`, `NO_PROXY`)."""
        self._verify = httpx.create_ssl_context() if url.scheme == "https" else False
        named = urllib.request.getproxies()
        proxy = named.get(url.scheme) or named.get("all")
        if proxy is not None and "://" not in proxy:
            proxy = f"http://{proxy}"
        self._proxy = None if urllib.request.proxy_bypass(url.host) else proxy
        self._limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` over an idle connection or a new one, and read the whole answer."""
        wire = self._idle.pop() if self._idle else self._connection()
        whole = False
        try:
            response = await wire.handle_async_request(request)
            await response.aread()
            whole = True
        finally:
            if whole and not self._closed:
                self._idle.append(wire)
            else:
                await wire.aclose()
        return response

    async def aclose(self) -> None:
        """Close all idle connections; those in use close when their request ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().aclose()

    def _connection(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=self._limits, proxy=self._proxy)


def listed_models(
    base_url: str, *, key: str | None, transport: httpx.BaseTransport | None = None
) -> Sequence[str] | None:
    """Names that `GET {base_url}/models` lists, or None where the server has no such page.

    Raises:
        httpx.HTTPError: nobody answers, or with an error other than 404, 405 or 501.
        ValueError: it answers something else than a list of models.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(transport=transport, timeout=_CONNECT_SECONDS, headers=headers) as client:
        response = client.get(f"{base_url.rstrip('/')}/models")
    if response.status_code in (404, 405, 501):
        return None
    response.raise_for_status()
    try:
        data = response.json()
        return [str(one["id"]) for one in data["data"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(response.text[:SHOWN]) from error


def _object(response: httpx.Response) -> tuple[str, dict[str, Any] | None]:
    """What is wrong with a reply of status 200, or the object that it is."""
    try:
        reply = json.loads(response.content)
    except ValueError:
        return f"it answered no JSON: {response.text[:SHOWN]!r}", None
    if not isinstance(reply, dict):
        return f"it answered {type(reply).__name__}, not an object: {reply!r:.{SHOWN}}", None
    # Gateways pass on the failure of the server behind them under a status of their own.
    error = reply.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if "choices" not in reply and isinstance(code, int) and code in _PASSING:
        return f"it answered an error: {error!r:.{SHOWN}}", None
    return "", reply


def _tokens_of(reply: Mapping[str, Any], otherwise: int) -> int:
    usage = reply.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and total >= 0 else otherwise


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None

"""Pages for a policy: bounded in size and time, polite, and never from a private network."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import socket
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

import httpx
from pydantic import Field

from agentrl.core.errors import ToolError
from agentrl.core.settings import Settings

from .disk_cache import DiskCache

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_AGENT = "agentrl"
_ROBOTS_BYTES = 500_000
"""What RFC 9309 asks a crawler to read at the least."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchSettings(Settings):
    """How pages are fetched. `timeout` is in seconds and for all redirects together.

    Only http and https; `robots.txt` is obeyed with `robots`. Addresses that are not public
    (private networks, loopback, link-local, a cloud's metadata) are refused, also after a redirect
    or where a public name leads to one, unless the host is named in `allow_private`. With `cache`
    (a folder) each page is fetched once in `cache_seconds`.
    """

    timeout: float = Field(default=20.0, gt=0.0)
    max_bytes: int = Field(default=2_000_000, ge=1000)
    max_redirects: int = Field(default=5, ge=0)
    connections: int = Field(default=32, ge=1)
    robots: bool = True
    allow_private: tuple[str, ...] = ()
    cache: str = ""
    cache_seconds: float | None = Field(default=None, gt=0.0)
    user_agent: str = f"{_AGENT}/0.1"


class Page(NamedTuple):
    """What a URL led to: where it ended, media type and encoding ("" where not told), content."""

    url: str
    media_type: str
    encoding: str
    content: bytes


class Fetcher:
    """Fetches pages; one serves any number of episodes, of one event loop after another."""

    def __init__(self, settings: FetchSettings | None = None) -> None:
        self.settings = settings or FetchSettings()
        keep = self.settings
        self._cache = DiskCache(keep.cache, max_age=keep.cache_seconds) if keep.cache else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._robots: dict[str, RobotFileParser] = {}

    async def get(self, url: str) -> Page:
        """The page at `url`, redirects followed.

        Raises:
            ToolError: refused, not found, too large, too slow: in words for the policy.
        """
        url = _checked(url)
        if self._cache is not None and (kept := self._cache.get(url)) is not None:
            return _unpacked(kept)
        try:
            async with asyncio.timeout(self.settings.timeout):
                page = await self._follow(url)
        except TimeoutError as error:
            raise ToolError(f"{url} did not answer within {self.settings.timeout:g} s.") from error
        if self._cache is not None:
            self._cache.put(url, _packed(page))
        return page

    async def close(self) -> None:
        """Close the connections of this event loop; may be called twice."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _follow(self, url: str) -> Page:
        for _ in range(self.settings.max_redirects + 1):
            if self.settings.robots and not await self._allowed(url):
                raise ToolError(f"{url} may not be fetched: the site's robots.txt forbids it.")
            page = await self._request(url, self.settings.max_bytes)
            if isinstance(page, Page):
                return page
            url = _checked(page)
        raise ToolError(f"{url}: more than {self.settings.max_redirects} redirects.")

    async def _request(self, url: str, max_bytes: int) -> Page | str:
        """The page, or where it redirects to."""
        try:
            async with self._open().stream("GET", url) as response:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return str(response.url.join(response.headers["location"]))
                if response.status_code >= 400:
                    said = f"{response.status_code} {response.reason_phrase}".strip()
                    raise _StatusError(f"{url} answered {said}.", response.status_code)
                content = await _body(response, url, max_bytes)
                media_type = response.headers.get("content-type", "").partition(";")[0]
                encoding = response.charset_encoding or ""
                return Page(url, media_type.strip().lower(), encoding, content)
        except httpx.InvalidURL as error:
            raise ToolError(f"{url!r} is no address: {error}.") from error
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise ToolError(f"{url} could not be fetched: {said}.") from error

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections belong to the loop that they were made in.
            self._loop = loop
            self._client = httpx.AsyncClient(
                transport=_PublicTransport(self.settings),
                headers={"user-agent": self.settings.user_agent, "accept-encoding": "gzip"},
                timeout=self.settings.timeout,
                trust_env=False,
            )
        return self._client

    async def _allowed(self, url: str) -> bool:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if parts.path == "/robots.txt":
            return True
        if origin not in self._robots:
            self._robots[origin] = await self._rules(f"{origin}/robots.txt")
        return self._robots[origin].can_fetch(_AGENT, url)

    async def _rules(self, url: str) -> RobotFileParser:
        rules = RobotFileParser(url)
        try:
            found: Page | str = url
            for _ in range(self.settings.max_redirects + 1):
                found = await self._request(_checked(str(found)), _ROBOTS_BYTES)
                if isinstance(found, Page):
                    break
        except _StatusError as error:
            # RFC 9309, 2.3.1: no such file allows all, a server in trouble allows nothing.
            rules.parse([] if error.status < 500 else ["User-agent: *", "Disallow: /"])
            return rules
        text = found.content.decode("utf-8", "replace") if isinstance(found, Page) else ""
        rules.parse(text.splitlines())
        return rules


class _StatusError(ToolError):
    """The server answered with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _PublicTransport(httpx.AsyncBaseTransport):
    """Connects to the very address that was checked, so that a name cannot change in between."""

    def __init__(self, settings: FetchSettings) -> None:
        self._allowed = frozenset(settings.allow_private)
        limits = httpx.Limits(max_connections=settings.connections)
        self._inner = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        address = await self._address(host, request.url.port)
        extensions = {**request.extensions, "sni_hostname": host}
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=str(address)),
            headers=request.headers,  # its Host is the name
            stream=request.stream,
            extensions=extensions,
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _address(self, host: str, port: int | None) -> Address:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ToolError(f"there is no host {host!r}.") from error
        addresses = [ipaddress.ip_address(one[4][0]) for one in found]
        if host not in self._allowed and not all(map(is_public, addresses)):
            raise ToolError(f"{host} is in a private network, which may not be browsed.")
        return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address is reachable for everybody, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not is_public(inner):
            return False
    return address.is_global and not address.is_multicast


def _checked(url: str) -> str:
    """`url` without its fragment, if it is one that may be asked for."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ToolError(f"{url!r} is no address: {error}.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ToolError(f"{url!r} is no address: write it whole, as in https://host/page.")
    if parts.username is not None or parts.password is not None:
        raise ToolError(f"{url!r} holds a user name, which is not sent.")
    return parts._replace(fragment="").geturl()


async def _body(response: httpx.Response, url: str, max_bytes: int) -> bytes:
    pieces, size = [], 0
    # Decoded: a small answer may unpack to a large one.
    async for piece in response.aiter_bytes(65536):
        size += len(piece)
        if size > max_bytes:
            raise ToolError(f"{url} is larger than {max_bytes:,} bytes.")
        pieces.append(piece)
    return b"".join(pieces)


def _packed(page: Page) -> bytes:
    fields = page._asdict() | {"content": base64.b64encode(page.content).decode()}
    return json.dumps(fields).encode()


def _unpacked(kept: bytes) -> Page:
    fields: Mapping[str, str] = json.loads(kept)
    return Page(**{**fields, "content": base64.b64decode(fields["content"])})  # type: ignore[arg-type]

"""Files that tasks bring from elsewhere: from a folder of the user's, or, if allowed, by HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from agentrl.core.errors import EnvError

MAX_BYTES = 64 << 20
SECONDS = 60.0


class Sources(NamedTuple):
    """What may be read: `file:` addresses below `folder`, and HTTP where `downloads` is set."""

    folder: str | None = None
    downloads: bool = False

    def refusal(self, url: str) -> str | None:
        """Why `url` may not be read, or None."""
        scheme = urlsplit(url).scheme
        if scheme in ("http", "https"):
            return None if self.downloads else f"{url} is a download, and `downloads` is not set"
        if scheme != "file":
            return f"{url} is neither a file: nor an http(s): address"
        if self.folder is None:
            return f"{url} is a file of this machine, and `files` names no folder to read from"
        if not self._path(url).is_file():
            return f"there is no file {self._path(url)} in {self.folder}"
        return None

    async def read(self, url: str) -> bytes:
        """The content of `url`.

        Raises:
            EnvError: it may not be read, cannot be reached or is too large.
        """
        reason = self.refusal(url)
        if reason:
            raise EnvError(reason)
        if urlsplit(url).scheme == "file":
            return await asyncio.to_thread(self._path(url).read_bytes)
        import httpx

        try:
            async with (
                httpx.AsyncClient(timeout=SECONDS, follow_redirects=True) as client,
                client.stream("GET", url) as answer,
            ):
                answer.raise_for_status()
                found = bytearray()
                async for piece in answer.aiter_bytes():
                    found += piece
                    if len(found) > MAX_BYTES:
                        raise EnvError(f"{url} has more than {MAX_BYTES >> 20} MiB")
        except httpx.HTTPError as error:
            raise EnvError(f"{url} could not be read: {type(error).__name__}: {error}") from error
        return bytes(found)

    def _path(self, url: str) -> Path:
        """The file of a `file:` address, never outside of the folder."""
        folder = Path(self.folder or ".").resolve()
        path = (folder / unquote(urlsplit(url).path).lstrip("/")).resolve()
        if path.is_relative_to(folder):
            return path
        return folder / "outside"

"""A model behind any OpenAI-compatible server, as the user or as the judge of a conversation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import httpx
from pydantic import Field

from agentrl.core.errors import EnvError
from agentrl.core.settings import Settings

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class Line(NamedTuple):
    """What somebody said in a conversation, seen from the side of the model."""

    role: Literal["system", "user", "assistant"]
    text: str


class ModelSettings(Settings):
    """A chat model: `base_url` ends before `/chat/completions` (`https://host/v1`).

    The key is read from the environment variable `api_key_env` where that is set. A request may
    take `timeout` seconds and is repeated `retries` times after `backoff`, twice `backoff`, ...
    seconds.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = Field(default=0.0, ge=0.0)
    max_tokens: int = Field(default=512, ge=1)
    timeout: float = Field(default=60.0, gt=0.0)
    retries: int = Field(default=3, ge=0)
    backoff: float = Field(default=0.5, gt=0.0)


class ChatModel:
    """Says what the model says next; may be used from one event loop after another."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None

    async def say(self, lines: Sequence[Line]) -> str:
        """The model's next message.

        Raises:
            EnvError: it cannot be reached, refuses, or does not answer as it should.
        """
        keep = self.settings
        body = {
            "model": keep.model,
            "messages": [{"role": line.role, "content": line.text} for line in lines],
            "temperature": keep.temperature,
            "max_tokens": keep.max_tokens,
        }
        response = await self._post(body)
        where = f"{keep.model} at {keep.base_url}"
        if response.status_code != 200:
            raise EnvError(f"{where}: status {response.status_code}: {response.text[:200]}")
        try:
            said = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise EnvError(f"{where}: no message in the reply {response.text[:200]!r}") from error
        if not isinstance(said, str) or not said.strip():
            raise EnvError(f"{where}: an empty message")
        return said.strip()

    async def _post(self, body: Mapping[str, object]) -> httpx.Response:
        keep = self.settings
        url = f"{keep.base_url.rstrip('/')}/chat/completions"
        key = os.environ.get(keep.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for attempt in range(keep.retries + 1):
            last = attempt == keep.retries
            try:
                response = await self._open().post(url, json=dict(body), headers=headers)
            except httpx.HTTPError as error:
                if last or not isinstance(error, httpx.TransportError):
                    said = str(error) or type(error).__name__
                    raise EnvError(
                        f"{url}: no answer after {attempt + 1} attempts: {said}"
                    ) from error
            else:
                if last or response.status_code not in _RETRIED:
                    return response
            await asyncio.sleep(keep.backoff * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections belong to the loop that they were made in.
            self._loop, self._client = loop, httpx.AsyncClient(timeout=self.settings.timeout)
        return self._client

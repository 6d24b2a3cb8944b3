"""The client of OpenAI-compatible servers against a fake that fails in every way."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from agentrl.core.errors import EngineError
from agentrl.engine import OpenAISettings
from agentrl.engine.base import Sampling
from agentrl.engine.openai import OpenAIEngine

URL = "http://server.test/v1"


class Letters:
    """One token per character."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(one) for one in text]

    def decode(self, token_ids, *, skip_special_tokens: bool = False) -> str:
        return "".join(chr(one) for one in token_ids)

    def __len__(self) -> int:
        return 128


def with_ids(ids: list[int], *, top: bool = True, **choice: object) -> dict[str, object]:
    """A reply as vLLM sends it."""
    logprobs = {
        "token_logprobs": [math.log(0.5)] * len(ids),
        "top_logprobs": [{"a": math.log(0.5), "b": math.log(0.25)}] * len(ids) if top else None,
    }
    body = {"text": "", "token_ids": ids, "logprobs": logprobs, "finish_reason": "stop"} | choice
    return {"choices": [body], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}}


async def connected(answer: Callable[[httpx.Request], httpx.Response], **settings) -> OpenAIEngine:
    """An engine whose server is `answer`."""
    defaults = {"base_url": URL, "backoff": 0.001, "retries": 3}
    engine = OpenAIEngine(
        OpenAISettings(**(defaults | settings)),
        "policy",
        tokenizer=Letters(),
        transport=httpx.MockTransport(answer),
    )
    await engine.start()
    return engine


async def test_token_ids_go_out_and_come_back_with_a_top_k_entropy():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=with_ids([7, 8]))

    engine = await connected(answer, model="served")
    found = await engine.generate(
        [1, 2, 3], Sampling(max_tokens=9, seed=5, stop=("x",), stop_token_ids=(8,))
    )
    assert found.token_ids.tolist() == [7, 8]
    np.testing.assert_allclose(found.logprobs, math.log(0.5), rtol=1e-6)
    # 0.5, 0.25 and 0.25 of everything else
    np.testing.assert_allclose(found.entropies, 1.5 * math.log(2), rtol=1e-6)
    assert (found.entropy_kind, found.finish_reason) == ("top_k", "stop")
    assert found.prefilled_tokens == 1
    assert seen[0]["prompt"] == [1, 2, 3]
    assert seen[0]["stop"] == ["x"]
    assert seen[0]["stop_token_ids"] == [8]
    assert (seen[0]["model"], seen[0]["seed"], seen[0]["max_tokens"]) == ("served", 5, 9)


async def test_a_plain_server_gets_text_and_its_text_is_encoded_with_the_stop_string():
    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert body["prompt"] == "who"
        assert "return_token_ids" not in body
        choice = {"text": "me", "finish_reason": "stop", "stop_reason": "</a>"}
        return httpx.Response(200, json={"choices": [choice]})

    engine = await connected(answer, prompt="text")
    found = await engine.generate(Letters().encode("who"), Sampling(stop=("</a>",)))
    assert Letters().decode(found.token_ids) == "me</a>"
    assert found.entropy_kind == "none"
    assert np.isnan(found.logprobs).all()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_passing_failures_are_tried_again(status):
    left = [httpx.Response(status), httpx.Response(status), httpx.Response(200, json=with_ids([1]))]
    engine = await connected(lambda request: left.pop(0))
    assert (await engine.generate([1], Sampling())).token_ids.tolist() == [1]


async def test_retry_after_is_honoured():
    left = [
        httpx.Response(429, headers={"retry-after": "0.15"}),
        httpx.Response(200, json=with_ids([1])),
    ]
    engine = await connected(lambda request: left.pop(0))
    started = asyncio.get_running_loop().time()
    await engine.generate([1], Sampling())
    assert asyncio.get_running_loop().time() - started >= 0.15


async def test_lost_connections_and_timeouts_are_tried_again_and_then_told():
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        raise httpx.ReadTimeout("too slow") if len(calls) % 2 else httpx.ConnectError("refused")

    engine = await connected(answer)
    with pytest.raises(EngineError, match="failed 4 times; the last time: ConnectError: refused"):
        await engine.generate([1], Sampling())
    assert len(calls) == 4


async def test_a_refusal_is_not_tried_again_and_says_what_to_do(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(401 if len(calls) == 1 else 400, text="no")

    engine = await connected(answer)
    with pytest.raises(EngineError, match=r"HTTP 401: 'no'.*OPENAI_API_KEY, which is not set"):
        await engine.generate([1], Sampling())
    with pytest.raises(EngineError, match=r"HTTP 400.*engine.prompt: text"):
        await engine.generate([1], Sampling())
    assert len(calls) == 2


async def test_the_key_comes_from_the_named_variable(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json=with_ids([1]))

    engine = await connected(answer, api_key_env="MY_KEY")
    await engine.generate([1], Sampling())
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"content": b"<html>", "headers": {}}, "answered no JSON: '<html>'"),
        ({"json": [1]}, "answered list, not an object"),
        ({"json": {"error": "busy"}}, "needs choices, the server sent .*busy"),
        ({"json": {"choices": [{"finish_reason": "stop"}]}}, "needs text, the server sent None"),
        ({"json": with_ids([1], finish_reason="abort")}, "ended with 'abort'"),
        ({"json": with_ids(["a"])}, "token_ids must be integers"),
        (
            {"json": with_ids([1, 2], logprobs={"token_logprobs": [-1.0]})},
            "2 tokens came with 1 log-probabilities",
        ),
    ],
)
async def test_a_malformed_reply_says_what_was_found(reply, message):
    engine = await connected(lambda request: httpx.Response(200, **reply))
    with pytest.raises(EngineError, match=message):
        await engine.generate([1], Sampling())


async def test_no_more_requests_at_once_than_allowed():
    now, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return httpx.Response(200, json=with_ids([1]))

    engine = await connected(answer, concurrency=3)
    await asyncio.gather(*(engine.generate([1], Sampling()) for _ in range(12)))
    assert most == 3


async def test_a_remote_server_cannot_be_trained_or_score(tmp_path: Path):
    engine = await connected(lambda request: httpx.Response(200, json=with_ids([1])))
    with pytest.raises(EngineError, match="cannot be trained"):
        await engine.load(tmp_path, 1)
    with pytest.raises(EngineError, match="cannot score"):
        await engine.score([1, 2])
    await engine.close()
    await engine.close()
    with pytest.raises(EngineError, match="call start"):
        await engine.generate([1], Sampling())


async def test_over_a_real_socket_a_dropped_connection_is_tried_again():
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if seen > 1:
            body = json.dumps(with_ids([5])).encode()
            start = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(start.encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = OpenAISettings(base_url=f"http://127.0.0.1:{port}/v1/", backoff=0.001)
    engine = OpenAIEngine(settings, "policy", tokenizer=Letters())
    await engine.start()
    assert (await engine.generate([1], Sampling())).token_ids.tolist() == [5]
    assert seen == 2
    await engine.close()
    server.close()

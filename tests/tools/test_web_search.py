from __future__ import annotations

import asyncio
import json
import time

import pytest
from web_site import Reply, site

from agentrl.core.errors import EnvError, SetupError
from agentrl.core.retrieval import Hit
from agentrl.tools.web_search import PROVIDERS, WebRetriever, WebSearchSettings

JSON = {"content-type": "application/json"}
ROWS = [("Bridge", "http://a/1", "built 1874"), ("Town", "http://a/2", "on wool"), ("No", "", "x")]

PATHS = {
    "brave": "/res/v1/web/search",
    "searxng": "/search",
    "serpapi": "/search.json",
    "serper": "/search",
    "tavily": "/search",
}


def reply_of(name, rows=ROWS):
    """The answer of a provider, recorded by the shape of its documentation."""
    provider = PROVIDERS[name]
    found = [dict(zip(provider.fields, row, strict=True)) for row in rows]
    for key in reversed(provider.results):
        found = {key: found}
    return Reply(json.dumps(found).encode(), 200, JSON)


def retriever(name, url, **settings):
    return WebRetriever(
        WebSearchSettings(
            **{"provider": name, "base_url": url, "backoff": 0.01, "per_second": 1000, **settings}
        )
    )


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for provider in PROVIDERS.values():
        if provider.api_key_env:
            monkeypatch.setenv(provider.api_key_env, "secret")


@pytest.mark.parametrize("name", PROVIDERS)
async def test_every_provider_gives_the_same_hits(name):
    with site({PATHS[name]: reply_of(name)}) as there:
        hits = await retriever(name, there.url).search("old bridge", 2)
        heard = there.heard[0]
    assert hits == [
        Hit("http://a/1", "Bridge", "http://a/1 built 1874", 1.0),
        Hit("http://a/2", "Town", "http://a/2 on wool", 0.5),
    ]
    asked = heard["query"] + heard["body"].decode()
    assert "old" in asked and "bridge" in asked
    told = str(heard["headers"]) + heard["query"]
    assert ("secret" in told) is (name != "searxng")


@pytest.mark.parametrize("name", PROVIDERS)
async def test_nothing_found_is_an_empty_list(name):
    with site({PATHS[name]: Reply(b"{}", 200, JSON)}) as there:
        assert await retriever(name, there.url).search("x", 3) == []


async def test_a_busy_server_is_asked_again_and_a_refusal_is_told():
    busy = Reply(b"slow down", 429, {"retry-after": "0"})
    with site({"/search": [busy, Reply(b"", 503), reply_of("serper")]}) as there:
        assert len(await retriever("serper", there.url).search("x", 5)) == 2
        assert there.asked["/search"] == 3
    with site({"/search": Reply(b"bad key", 403)}) as there:
        with pytest.raises(EnvError, match="status 403: bad key"):
            await retriever("serper", there.url).search("x", 5)
        assert there.asked["/search"] == 1
    with site({"/search": busy}) as there:
        with pytest.raises(EnvError, match="status 429"):
            await retriever("serper", there.url, retries=2).search("x", 5)
        assert there.asked["/search"] == 3
    with pytest.raises(EnvError, match="no answer after 2 attempts: ConnectError"):
        await retriever("serper", there.url, retries=1).search("x", 5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "not JSON"),
        (b"[1]", "should be an object"),
        (b'{"organic": {"a": 1}}', "organic should be a list"),
        (b'{"organic": ["a"]}', "organic should be a list of objects"),
    ],
)
async def test_a_malformed_reply_says_where(body, said):
    with site({"/search": Reply(body, 200, JSON)}) as there, pytest.raises(EnvError, match=said):
        await retriever("serper", there.url).search("x", 3)


async def test_a_missing_key_or_address_is_said_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("SERPER_API_KEY")
    with pytest.raises(SetupError, match="environment variable SERPER_API_KEY"):
        await WebRetriever(WebSearchSettings(provider="serper")).start()
    monkeypatch.setenv("MINE", "k")
    await WebRetriever(WebSearchSettings(provider="serper", api_key_env="MINE")).start()
    with pytest.raises(SetupError, match="give base_url"):
        await WebRetriever(WebSearchSettings(provider="searxng")).start()


async def test_recorded_answers_are_replayed_from_the_cache_without_server_or_key(
    tmp_path, monkeypatch
):
    with site({"/search": reply_of("serper")}) as there:
        first = await retriever("serper", there.url, cache=str(tmp_path)).search("x", 2)
        assert there.asked["/search"] == 1
    monkeypatch.delenv("SERPER_API_KEY")
    again = await retriever("serper", there.url, cache=str(tmp_path)).search("x", 2)
    assert again == first and len(again) == 2


async def test_no_more_requests_start_in_a_second_than_allowed():
    with site({"/search": reply_of("serper")}) as there:
        polite = retriever("serper", there.url, per_second=50)
        began = time.perf_counter()
        await asyncio.gather(*(polite.search(f"q{n}", 2) for n in range(10)))
        assert time.perf_counter() - began > 9 / 50
        assert there.asked["/search"] == 10

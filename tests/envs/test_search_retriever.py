"""Retrievers: the local index, the HTTP client against good and bad servers, and the server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import httpx
import pytest

from agentrl.core.errors import EnvError
from agentrl.core.retrieval import Hit, told
from agentrl.envs.search.index import Bm25Index
from agentrl.envs.search.records import Passage
from agentrl.envs.search.retriever import HttpRetriever, IndexRetriever, read_reply
from agentrl.envs.search.server import MAX_QUERIES, retrieval_app

CORPUS = [
    Passage("p1", "Solaris", "a film by Tarkovsky"),
    Passage("p2", "Stalker", "another film by Tarkovsky"),
    Passage("p3", "", "a passage without title"),
]


def test_results_are_told_as_documents_or_plain() -> None:
    hits = [Hit("a", "T", "one", 2.0), Hit("b", "", "two", 1.0)]
    documents = told(hits, style="documents", max_chars=100)
    assert documents == 'Doc 1(Title: "T") one\nDoc 2(Title: "") two'
    assert told(hits, style="plain", max_chars=7) == "one\ntwo"
    assert told([], style="plain", max_chars=5) == "nothing found"


def test_the_longest_passages_are_cut_so_that_all_are_shown() -> None:
    hits = [Hit(str(n), "", text, 1.0) for n, text in enumerate(("x" * 50, "short", "y" * 12))]
    # 30 characters less 2 line ends and 5 for "short" leave 11 for each of the other two.
    assert told(hits, style="plain", max_chars=30) == "xxxxxxx ...\nshort\nyyyyyyy ..."
    assert told(hits, style="plain", max_chars=31) == "xxxxxxxx ...\nshort\n" + "y" * 12
    assert told(hits, style="plain", max_chars=69) == "\n".join(hit.text for hit in hits)
    assert told(hits[:1], style="plain", max_chars=3) == " ..."


async def test_a_local_retriever_loads_its_index_once_and_off_the_loop() -> None:
    loads: list[int] = []

    def load() -> Bm25Index:
        loads.append(threading.get_ident())
        time.sleep(0.05)
        return Bm25Index.build(CORPUS)

    retriever = IndexRetriever(load)
    beats = 0
    searching = asyncio.ensure_future(retriever.search("stalker", 2))
    while not searching.done():
        beats += 1
        await asyncio.sleep(0.005)
    assert [hit.id for hit in await searching] == ["p2"]
    assert [hit.id for hit in await retriever.search("film", 5)] == ["p1", "p2"]
    assert loads and threading.get_ident() not in loads and len(loads) == 1
    assert beats > 3


class Quiet(ThreadingHTTPServer):
    """Does not print that a client went away."""

    def handle_error(self, *args: object) -> None:
        pass


class Server(NamedTuple):
    url: str
    requests: list[dict[str, object]]


Answer = Callable[[dict[str, object], int], tuple[int, object]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """Starts a server that answers what a function of the request and its number says."""
    running: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> Server:
        requests: list[dict[str, object]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                requests.append(body)
                status, reply = answer(body, len(requests))
                content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        server = Quiet(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Server(f"http://127.0.0.1:{server.server_port}", requests)

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def echo(body: dict[str, object], number: int) -> tuple[int, object]:
    rows = [
        [{"document": {"id": 7, "contents": f'"{query}"\ntext'}, "score": 1}]
        for query in body["queries"]
    ]
    return 200, {"result": rows}


async def test_concurrent_queries_travel_together_and_come_back_apart(serve) -> None:
    server = serve(echo)
    retriever = HttpRetriever(server.url, batch=8)
    found = await asyncio.gather(*(retriever.search(f"q{n}", 3) for n in range(20)))
    assert [hits[0] for hits in found] == [Hit("7", f"q{n}", "text", 1.0) for n in range(20)]
    assert len(server.requests) <= 4
    assert all(len(one["queries"]) <= 8 for one in server.requests)
    assert all(one["topk"] == 3 and one["return_scores"] is True for one in server.requests)
    await asyncio.gather(retriever.search("a", 2), retriever.search("b", 5))
    assert sorted(one["topk"] for one in server.requests[-2:]) == [2, 5]
    await retriever.close()
    await retriever.close()


async def test_a_busy_server_is_asked_again(serve) -> None:
    server = serve(lambda body, n: echo(body, n) if n > 2 else (503, "busy"))
    retriever = HttpRetriever(server.url, backoff=0.001)
    assert (await retriever.search("q", 1))[0].title == "q"
    assert len(server.requests) == 3
    await retriever.close()


async def test_a_refusal_is_told_and_not_repeated(serve) -> None:
    server = serve(lambda body, n: (422, {"detail": "'topk' must be smaller"}))
    retriever = HttpRetriever(f"{server.url}/retrieve", backoff=0.001)
    with pytest.raises(EnvError) as caught:
        await retriever.search("q", 1)
    assert str(caught.value) == (
        f'retriever {server.url}/retrieve: status 422: {{"detail": "\'topk\' must be smaller"}}'
    )
    assert len(server.requests) == 1
    await retriever.close()


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    retriever = HttpRetriever(f"http://127.0.0.1:{port}", retries=1, backoff=0.001)
    with pytest.raises(EnvError, match=rf"127.0.0.1:{port}/retrieve: no answer after 2 attempts"):
        await retriever.search("q", 1)
    await retriever.close()


async def test_a_server_that_hangs_is_given_up_in_time(serve) -> None:
    release = threading.Event()
    server = serve(lambda body, n: (release.wait(5), (200, {"result": [[]]}))[1])
    retriever = HttpRetriever(server.url, timeout=0.05, retries=1, backoff=0.001)
    started = time.perf_counter()
    with pytest.raises(EnvError, match="no answer after 2 attempts: ReadTimeout"):
        await retriever.search("q", 1)
    assert time.perf_counter() - started < 2.0
    release.set()
    await retriever.close()


async def test_a_failed_batch_fails_each_of_its_queries_and_no_other(serve) -> None:
    server = serve(lambda body, n: echo(body, n) if "bad" not in body["queries"] else (400, "no"))
    retriever = HttpRetriever(server.url)
    good = await retriever.search("fine", 1)
    results = await asyncio.gather(
        retriever.search("bad", 1), retriever.search("with it", 1), return_exceptions=True
    )
    assert good[0].title == "fine"
    assert [type(one) for one in results] == [EnvError, EnvError]
    assert (await retriever.search("fine again", 1))[0].title == "fine again"
    await retriever.close()


def test_a_client_serves_one_event_loop_after_another(serve) -> None:
    retriever = HttpRetriever(serve(echo).url)

    async def once() -> str:
        title = (await retriever.search("q", 1))[0].title
        await retriever.close()
        return title

    assert asyncio.run(once()) == asyncio.run(once()) == "q"


GOOD = {"document": {"id": "a", "contents": "x"}, "score": 1.0}

MALFORMED = {
    "not JSON": (b"<html>", "the reply is not JSON: '<html>'"),
    "a list": ([], "reply should be an object, got []"),
    "no result": ({"results": []}, "reply has no 'result', its keys are ['results']"),
    "too few": ({"result": []}, "1 queries were asked, 0 answered"),
    "row": ({"result": [None]}, "result[0] should be a list, got null"),
    "no scores": (
        {"result": [[{"id": "a", "contents": "x"}]]},
        "result[0][0] has no 'document', its keys are ['id', 'contents']",
    ),
    "no contents": (
        {"result": [[GOOD, {"document": {"id": "a", "text": "x"}, "score": 1}]]},
        "result[0][1].document has no 'contents', its keys are ['id', 'text']",
    ),
    "contents": (
        {"result": [[{"document": {"id": "a", "contents": 5}, "score": 1}]]},
        "result[0][0].document.contents should be text, got 5",
    ),
    "score": (
        {"result": [[{"document": {"id": "a", "contents": "x"}, "score": "1"}]]},
        'result[0][0].score should be a number, got "1"',
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_reply_is_named_with_its_place(name: str) -> None:
    reply, message = MALFORMED[name]
    content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    with pytest.raises(EnvError) as caught:
        read_reply(content, url="http://host/retrieve", queries=1)
    assert str(caught.value) == f"retriever http://host/retrieve: {message}"


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = retrieval_app(Bm25Index.build(CORPUS), topk=1)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_the_server_speaks_search_r1s_protocol(client) -> None:
    reply = await client.post(
        "/retrieve", json={"queries": ["Solaris film", "zebra"], "topk": 2, "return_scores": True}
    )
    assert reply.status_code == 200
    first, second = reply.json()["result"]
    assert [item["document"] for item in first] == [
        {"id": "p1", "contents": '"Solaris"\na film by Tarkovsky'},
        {"id": "p2", "contents": '"Stalker"\nanother film by Tarkovsky'},
    ]
    assert first[0]["score"] > first[1]["score"] > 0
    assert second == []
    bare = await client.post("/retrieve", json={"queries": ["film"]})
    assert bare.json() == {"result": [[{"id": "p1", "contents": '"Solaris"\na film by Tarkovsky'}]]}
    health = await client.get("/health")
    assert health.json() == {"status": "ok", "passages": 3, "topk": 1}


REFUSED = {
    "not JSON": (b"{queries", 400, "the request is not JSON: Expecting property name"),
    "a list": (["q"], 422, 'the request must be an object, got ["q"]'),
    "no queries": ({"topk": 3}, 422, "'queries' must be a list of at least one text, got null"),
    "one text": ({"queries": "q"}, 422, "'queries' must be a list of at least one text, got \"q\""),
    "no query": ({"queries": []}, 422, "'queries' must be a list of at least one text, got []"),
    "a number": ({"queries": ["q", 5]}, 422, "queries[1] must be text, got 5"),
    "topk 0": (
        {"queries": ["q"], "topk": 0},
        422,
        "'topk' must be a whole number from 1 to 1000, got 0",
    ),
    "topk true": (
        {"queries": ["q"], "topk": True},
        422,
        "'topk' must be a whole number from 1 to 1000, got true",
    ),
    "scores": (
        {"queries": ["q"], "return_scores": "yes"},
        422,
        "'return_scores' must be true or false, got \"yes\"",
    ),
    "unknown key": (
        {"queries": ["q"], "top_k": 3},
        422,
        "unknown key 'top_k'. Did you mean 'topk'? Known: queries, topk, return_scores",
    ),
    "too many": ({"queries": ["q"] * (MAX_QUERIES + 1)}, 413, "4097 queries are more than"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_the_server_says_what_is_wrong_with_a_request(name: str, client) -> None:
    body, status, message = REFUSED[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await client.post("/retrieve", content=content)
    assert reply.status_code == status
    assert reply.json()["detail"].startswith(message)
    assert (await client.get("/retrieve")).status_code == 405


async def test_the_server_takes_no_endless_request(client) -> None:
    reply = await client.post("/retrieve", content=b" " * (17 * 2**20))
    assert reply.status_code == 413
    assert "larger than 16777216 bytes" in reply.json()["detail"]

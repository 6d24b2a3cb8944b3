"""A web site on this machine, by a table of paths; counts what was asked of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {"content-type": "text/html; charset=utf-8"}
    wait: Callable[[], Any] = lambda: None


class Site(NamedTuple):
    url: str
    asked: Counter[str]
    heard: list[dict[str, Any]]


@contextmanager
def site(replies: Mapping[str, Any]) -> Iterator[Site]:
    """Serves `replies` by path: a `Reply`, or a list of them, one for each request in turn."""
    asked: Counter[str] = Counter()
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            path, _, query = self.path.partition("?")
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size)
            heard.append({"path": path, "query": query, "headers": self.headers, "body": body})
            reply = replies.get(path, Reply(b"gone", 404))
            if isinstance(reply, list):
                reply = reply[min(asked[path], len(reply) - 1)]
            asked[path] += 1
            reply.wait()
            self.send_response(reply.status)
            for key, value in reply.headers.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            try:
                self.wfile.write(reply.body)
            except ConnectionError:
                return

        do_GET = do_POST = _answer

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield Site(f"http://127.0.0.1:{server.server_port}", asked, heard)
    finally:
        server.shutdown()
        server.server_close()

"""A chat server on this machine that judges as a test wants it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Said(NamedTuple):
    """A reply: its text, how it ended, the status, and how long it takes."""

    text: object = "Grade: CORRECT"
    finish_reason: str = "stop"
    status: int = 200
    seconds: float = 0.0


class Served(NamedTuple):
    url: str
    bodies: list[dict[str, Any]]


@contextmanager
def judge_server(say: Callable[[str], Said]) -> Iterator[Served]:
    """Serves `say(prompt)` as chat completions; keeps what was asked."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append({"path": self.path, **body})
            said = say(body["messages"][0]["content"])
            time.sleep(said.seconds)
            message = {"role": "assistant", "content": said.text}
            choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
            sent = json.dumps({"choices": [choice]} if said.status == 200 else {"error": said.text})
            try:
                self.send_response(said.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent.encode())
            except ConnectionError:
                return

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield Served(f"http://127.0.0.1:{server.server_port}/v1", bodies)
    finally:
        server.shutdown()
        server.server_close()

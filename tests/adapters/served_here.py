"""A server of an environment in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from agentrl.adapters.server import EnvServer, Served


@contextlib.contextmanager
def served(id: str, *, port: int = 0, **bounds: object) -> Iterator[tuple[str, EnvServer]]:
    """The address of a server of `id`, and the server."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        environment = EnvServer(Served(id=id, **bounds))
        config = uvicorn.Config(
            environment.app(),
            log_level="error",
            ws="websockets-sansio",
            ws_ping_interval=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 10
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert server.started
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", environment
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()

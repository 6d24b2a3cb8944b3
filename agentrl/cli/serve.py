"""`agentrl serve`: servers that a run can use instead of what it holds itself."""

from __future__ import annotations

import importlib.util
import socket
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agentrl.core.errors import SetupError

app = typer.Typer(help="Serve what runs can share.", no_args_is_help=True)


@app.callback()
def serve() -> None:
    """Serve what runs can share."""


@app.command()
def retriever(
    corpus: Annotated[Path, typer.Option(help="Corpus in JSON lines, plain or gzipped.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    topk: Annotated[int, typer.Option(min=1, max=1000, help="Where a request names none.")] = 3,
    index: Annotated[
        Path | None, typer.Option(help="Folder that keeps the index; in memory if left out.")
    ] = None,
    k1: Annotated[float, typer.Option(min=0.0, help="BM25: saturation of repeated words.")] = 0.9,
    b: Annotated[float, typer.Option(min=0.0, max=1.0, help="BM25: length discount.")] = 0.4,
) -> None:
    """Search a corpus by BM25 over Search-R1's protocol, `POST /retrieve`."""
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise SetupError(
                f'`agentrl serve retriever` needs {package}: pip install "agentrl[serve]"'
            )
    import uvicorn

    from agentrl.envs.search.index import Scoring
    from agentrl.envs.search.server import retrieval_app
    from agentrl.envs.search.storage import load_index

    console = Console(stderr=True)
    # First, so that a taken port is said before the corpus is read.
    listener = _bound(host, port)
    started = time.perf_counter()
    loaded = load_index(corpus, folder=index, scoring=Scoring(k1, b))
    loaded.search(["warm up"], 1)
    seconds = time.perf_counter() - started
    console.print(f"{len(loaded)} passages indexed in {seconds:.1f} s ({loaded.backend})")
    server = uvicorn.Server(uvicorn.Config(retrieval_app(loaded, topk=topk), log_level="warning"))
    # With port 0 the system chooses: what was bound is told, not what was asked for.
    address = listener.getsockname()[1]
    console.print(f"listening on http://{host}:{address}/retrieve", soft_wrap=True)
    server.run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    """A socket bound to the address; SetupError where it cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}; name "
            "another --port (0 takes a free one) or --host"
        ) from error
    return listener

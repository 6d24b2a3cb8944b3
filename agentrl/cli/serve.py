"""`agentrl serve`: servers that a run can use instead of what it holds itself."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from agentrl.cli.env import parsed_settings
from agentrl.core.errors import SetupError
from agentrl.core.registry import make_env

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

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
    retrieval: Annotated[
        Literal["bm25", "dense", "hybrid"], typer.Option(help="By words, embeddings or both.")
    ] = "bm25",
    encoder: Annotated[
        str, typer.Option(help="Folder or hub id of the sentence encoder, for embeddings.")
    ] = "",
    query_prompt: Annotated[str, typer.Option(help="E5: 'query: '.")] = "",
    passage_prompt: Annotated[str, typer.Option(help="E5: 'passage: '.")] = "",
    k1: Annotated[float, typer.Option(min=0.0, help="BM25: saturation of repeated words.")] = 0.9,
    b: Annotated[float, typer.Option(min=0.0, max=1.0, help="BM25: length discount.")] = 0.4,
) -> None:
    """Search a corpus over Search-R1's protocol, `POST /retrieve`."""
    _need("retriever", "starlette", "uvicorn")
    if (retrieval == "bm25") is bool(encoder):
        said = f"has no use for --encoder {encoder}" if encoder else "needs --encoder"
        raise SetupError(f"--retrieval {retrieval} {said}")
    import uvicorn

    from agentrl.envs.search.dense import EncoderSettings, PassageIndex, by_meaning
    from agentrl.envs.search.index import Scoring
    from agentrl.envs.search.server import retrieval_app
    from agentrl.envs.search.storage import load_index

    console = Console(stderr=True)
    # First, so that a taken port is said before the corpus is read.
    listener = bound(host, port)
    started = time.perf_counter()
    words = load_index(corpus, folder=index, scoring=Scoring(k1, b))
    loaded: PassageIndex = words
    if retrieval != "bm25":
        console.print(f"embedding {len(words)} passages", style="dim")
        settings = EncoderSettings(encoder, query_prompt, passage_prompt)
        loaded = by_meaning(words, retrieval, settings, folder=index)
    loaded.search(["warm up"], 1)
    seconds = time.perf_counter() - started
    how = words.backend if retrieval == "bm25" else retrieval
    console.print(f"{len(loaded)} passages indexed in {seconds:.1f} s ({how})")
    server = uvicorn.Server(uvicorn.Config(retrieval_app(loaded, topk=topk), log_level="warning"))
    # With port 0 the system chooses: what was bound is told, not what was asked for.
    address = listener.getsockname()[1]
    console.print(f"listening on http://{host}:{address}/retrieve", soft_wrap=True)
    server.run(sockets=[listener])


@app.command()
def env(
    id: Annotated[str, typer.Argument(help="An id of `env list`, or any other that recipes take.")],
    arg: Annotated[
        list[str] | None, typer.Option("--arg", help="A setting of the environment, as key=value.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    sessions: Annotated[int, typer.Option(min=1, help="Most at once, in each process.")] = 4096,
    idle_seconds: Annotated[
        float, typer.Option(min=1.0, help="A session without requests ends after so long.")
    ] = 900.0,
    body_mib: Annotated[int, typer.Option(min=1, max=64, help="Largest request or answer.")] = 16,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let everybody in who reaches the address.")
    ] = False,
) -> None:
    """Serve an environment to recipes elsewhere, which name it `remote:http://HOST:PORT`.

    Clients must show the token of the variable AGENTRL_TOKEN, where it is set.
    """
    _need("env", "starlette", "uvicorn", "websockets")
    import uvicorn

    from agentrl.adapters.remote import TOKEN_VARIABLE
    from agentrl.adapters.server import EnvServer, Served, tell_workers

    token = os.environ.get(TOKEN_VARIABLE, "")
    if not (token or no_token or host in _LOOPBACK):
        raise SetupError(
            f"whoever reaches {host} could play this environment: set {TOKEN_VARIABLE} to a "
            "secret, here and for the clients, or give --no-token"
        )
    settings = parsed_settings(arg or ())
    console = Console(stderr=True)
    listener = bound(host, port)
    # First, so that a mistake in the settings is said before anything listens.
    made = make_env(id, **settings)
    asyncio.run(made.close())
    served = Served(
        id=id,
        settings=settings,
        token=token,
        sessions=sessions,
        idle_seconds=idle_seconds,
        body_bytes=body_mib * 2**20,
        workers=workers,
    )
    application: Any = "agentrl.adapters.server:served_from_environment"
    config = uvicorn.Config(
        application if workers > 1 else EnvServer(served).app(),
        factory=workers > 1,
        workers=workers,
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=served.body_bytes + 64,
        ws_per_message_deflate=False,
        # A client may be busy with an update for minutes and answer no ping meanwhile.
        ws_ping_interval=None,
        timeout_graceful_shutdown=5,
    )
    console.print(
        f"{id} at http://{host}:{listener.getsockname()[1]}: name it remote:http://... in recipes"
        + ("" if token else " (no token)"),
        soft_wrap=True,
        highlight=False,
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    from uvicorn.supervisors import Multiprocess

    tell_workers(served)
    Multiprocess(config, sockets=[listener]).run()


def _need(command: str, *packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise SetupError(
                f'`agentrl serve {command}` needs {package}: pip install "agentrl[serve]"'
            )


def bound(host: str, port: int) -> socket.socket:
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

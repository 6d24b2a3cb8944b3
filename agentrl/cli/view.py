"""`agentrl view`: the page of runs and evaluations, served here or written to a file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agentrl.cli.serve import bound
from agentrl.core.errors import SetupError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def view(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or an evaluation.")],
    beside: Annotated[
        Path | None, typer.Argument(help="Another, to be shown beside the first.")
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Write one HTML file that needs no server and no network.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    tokenizer: Annotated[
        str, typer.Option(help="Folder of the policy's tokenizer, where it is elsewhere.")
    ] = "",
) -> None:
    """Look at a run or an evaluation: tasks, trees, credit, tokens, metrics."""
    from agentrl.view.page import write_page
    from agentrl.view.read import open_source

    console = Console(stderr=True)
    sources = [open_source(one) for one in (folder, beside) if one is not None]
    if out is not None:
        if out.is_dir():
            raise SetupError(
                f"{out} is a folder; name the file to write, as in {out / 'page.html'}"
            )
        with console.status("reading") as status:
            written = write_page(out, sources, tokenizer=tokenizer, progress=status.update)
        size = written.bytes / 2**20
        notes = f"; notes: {written.notes}" if written.notes else ""
        console.print(
            f"{out}: {written.trajectories} trajectories in {size:.1f} MiB{notes}", highlight=False
        )
        return
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise SetupError(
                f'`agentrl view` needs {package} to serve: pip install "agentrl[serve]", or write '
                "a file with --out"
            )
    import uvicorn

    from agentrl.view.server import Viewer

    # First, so that a taken port is said before anything is read.
    listener = bound(host, port)
    with console.status("reading") as status:
        viewer = Viewer(sources, tokenizer=tokenizer, progress=status.update)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/{viewer.token}/"
    console.print(f"{address}  (Ctrl+C ends it)", soft_wrap=True, highlight=False)
    if browser and host in _LOOPBACK:
        import webbrowser

        webbrowser.open(address)
    config = uvicorn.Config(viewer.app(local=host in _LOOPBACK), log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])

"""The one HTML page of the viewer: for a server, or whole in a file with everything inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from agentrl.core.errors import DataError
from agentrl.view.chunk import tokens_chunk, used_tokens
from agentrl.view.index import Indexer, metrics_data
from agentrl.view.read import Source

SCRIPTS = (
    *("base.js", "data.js", "route.js", "plots.js", "overview.js", "marks.js", "list.js"),
    *("layout.js", "tree.js", "trajectory.js", "tokens.js", "metrics.js", "compare.js", "app.js"),
)
"""The parts of the page's program, in the order in which they are joined."""

MEDIA_TYPES: Mapping[bytes, str] = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
"""First bytes of the images that are shown; nothing else is (an SVG could hold a program)."""

_HASH = re.compile(r"[0-9a-f]{64}")
_IMAGE_BYTES = 64 * 2**20


class Page(NamedTuple):
    """A page in two halves, between which a file has its data, and the policy that guards it."""

    head: str
    tail: str
    policy: str


class Written(NamedTuple):
    """What a file holds: bytes, trajectories, notes on what it lacks."""

    bytes: int
    trajectories: int
    notes: int


def page(*, title: str, sources: int, served: bool) -> Page:
    """The page without data: one style sheet and one program, both pinned by their hashes.

    A served page may fetch from its own server; one in a file may fetch nothing.
    """
    static = files("agentrl.view") / "static"
    style = (static / "style.css").read_text()
    parts = [(static / name).read_text() for name in SCRIPTS]
    program = '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(program)}'",
            f"style-src '{_digest(style)}'",
            "img-src blob:",
            f"connect-src {chr(39)}self{chr(39)}" if served else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = (static / "page.html").read_text()
    for name, value in {
        "title": html.escape(title),
        "policy": html.escape(policy),
        "style": style,
        "sources": str(sources),
        "served": "1" if served else "",
    }.items():
        template = template.replace("{{" + name + "}}", value)
    head, tail = template.split("{{data}}")
    first, last = tail.split("{{program}}")
    return Page(head, first + program + last, policy)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def compact(data: object) -> str:
    """JSON of ASCII letters only, so that lone surrogates and odd line ends pass any reader."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def packed(raw: bytes) -> str:
    """Base64 of the deflated bytes."""
    return base64.b64encode(zlib.compress(raw, 4)).decode()


def write_page(
    path: Path,
    sources: Sequence[Source],
    *,
    tokenizer: str = "",
    progress: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write one HTML file that holds everything; under a temporary name, then renamed.

    What is shown first (the program and the index) stands before what is opened later.
    """
    indexers = [Indexer(source, tokenizer=tokenizer) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    later = path.with_name(f".{path.name}.data.tmp")
    made = page(title=title_of(sources), sources=len(sources), served=False)
    try:
        with later.open("w", encoding="ascii") as file:
            for number, indexer in enumerate(indexers):
                for name, blob in _blobs(indexer, progress):
                    file.write(_block(f"{number}/{name}", blob))
        with temporary.open("w", encoding="utf-8") as file, later.open(encoding="ascii") as rest:
            file.write(made.head)
            for number, indexer in enumerate(indexers):
                file.write(_block(f"{number}/index", packed(compact(indexer.data()).encode())))
            body, end = made.tail.split("{{later}}")
            file.write(body)
            for block in rest:
                file.write(block)
            file.write(end)
        size = temporary.stat().st_size
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        later.unlink(missing_ok=True)
    return Written(
        size,
        sum(len(indexer.rows["group"]) for indexer in indexers),
        sum(len(source.notes) for source in sources),
    )


def _block(name: str, blob: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{blob}</script>\n'


def _blobs(indexer: Indexer, progress: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Name and packed bytes of everything but the index, which is known when this has ended."""
    source = indexer.source
    used: set[int] = set()
    images: set[str] = set()
    at_hand = image_files(source)
    for number, (chunk, groups) in enumerate(indexer.read()):
        progress(f"{source.name}: {chunk.part.label}")
        turns = compact(indexer.turns(groups))
        if at_hand:
            images.update(found for found in _HASH.findall(turns) if found in at_hand)
        yield f"turns/{number}", packed(turns.encode())
        if not source.speaks_text:
            yield f"tokens/{number}", packed(compact(tokens_chunk(groups)).encode())
            used |= used_tokens(groups)
    yield "metrics", packed(compact(metrics_data(source)).encode())
    if indexer.vocabulary is not None:
        yield "pieces", packed(compact(indexer.vocabulary.pieces(used)).encode())
    total = 0
    for name in sorted(images):
        raw = at_hand[name].read_bytes()
        total += len(raw)
        if total > _IMAGE_BYTES:
            source.note("images", "more than 64 MiB: those left out are marked in the text")
            break
        if media_type(raw):
            yield f"image/{name}", packed(raw)


def image_files(source: Source) -> dict[str, Path]:
    """The images beside an evaluation, by the hash that names them."""
    folder = source.folder / "images"
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in folder.iterdir() if _HASH.fullmatch(path.stem)}


def media_type(raw: bytes) -> str:
    """The media type that the first bytes tell, or "" for what is not shown."""
    return next((name for start, name in MEDIA_TYPES.items() if raw.startswith(start)), "")


def title_of(sources: Sequence[Source]) -> str:
    """What the page is called."""
    if not sources:
        raise DataError("nothing to show: name the folder of a run or an evaluation")
    return " and ".join(source.name for source in sources)

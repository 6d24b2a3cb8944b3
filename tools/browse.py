"""The browse tool: the readable text of a page, a part at a time."""

from __future__ import annotations

from typing import Protocol

from agentrl.core.errors import ContractError, SetupError, ToolError
from agentrl.core.threads import in_thread
from agentrl.core.tool import Tool

from .fetch import Page

_HTML = ("text/html", "application/xhtml+xml")
_PLAIN = ("application/json", "application/xml", "application/ld+json")
_MAX_ELEMENTS = 100_000


class Source(Protocol):
    """Where pages come from: a `Fetcher`, or a small web of one's own."""

    async def get(self, url: str) -> Page:
        """The page at `url`; `ToolError` in words for the policy where there is none."""
        ...


def browse_tool(source: Source, *, part_chars: int = 4000, timeout: float = 60.0) -> Tool:
    """A tool `browse(url, part)` that shows a page's readable text, `part_chars` at a time.

    Links stand beside their words, so that the policy can follow them. It has no state, so an
    environment that holds it forks freely. `timeout` is in seconds.
    """
    if part_chars < 100:
        raise ContractError(f"the browse tool needs part_chars >= 100, got {part_chars}")

    async def browse(url: str, part: int = 1) -> str:
        """Read a web page.

        Args:
            url: The page's whole address, as in https://host/page.
            part: Which part of a long page to show; the first one is 1.
        """
        page = await source.get(url)
        return shown_part(await readable(page), part, part_chars)

    return Tool.of(browse, timeout=timeout, max_result_chars=part_chars + 200)


async def readable(page: Page) -> str:
    """The text of a page without its navigation, links in brackets after their words.

    Raises:
        ToolError: it is neither a page nor text.
        SetupError: the package that reads pages is missing.
    """
    if page.media_type in _HTML or (
        not page.media_type and b"<html" in page.content[:2000].lower()
    ):
        return await in_thread(lambda: _extracted(page))
    if page.media_type.startswith("text/") or page.media_type in _PLAIN:
        return _decoded(page).strip() or "(an empty page)"
    raise ToolError(f"{page.url} is {page.media_type or 'of no known type'}, not a page of text.")


def shown_part(text: str, part: int, part_chars: int) -> str:
    """Part `part` (from 1) of `text`, with a last line that tells how many there are."""
    parts = max(1, -(-len(text) // part_chars))
    if not 1 <= part <= parts:
        raise ToolError(f"there is no part {part}: the page has {parts}.")
    piece = text[(part - 1) * part_chars : part * part_chars]
    return piece if parts == 1 else f"{piece}\n(part {part} of {parts})"


def _extracted(page: Page) -> str:
    try:
        import trafilatura
    except ImportError as error:
        raise SetupError(
            'reading web pages needs the package trafilatura: pip install "agentrl[browse]"'
        ) from error
    html = _decoded(page)
    tree = trafilatura.load_html(html)
    if tree is None:
        return "(an empty page)"
    if sum(1 for _ in zip(tree.iter(), range(_MAX_ELEMENTS), strict=False)) >= _MAX_ELEMENTS:
        raise ToolError(f"{page.url} has more than {_MAX_ELEMENTS:,} elements.")
    title = (tree.findtext(".//title") or "").strip()
    text = trafilatura.extract(
        html, url=page.url, include_links=True, include_tables=True, favor_recall=True
    )
    if not text:
        # Not an article: whatever it shows, in its order.
        text = trafilatura.html2txt(html)
    body = (text or "").strip() or "(no text)"
    return f"{title}\n\n{body}" if title and not body.startswith(title) else body


def _decoded(page: Page) -> str:
    try:
        return page.content.decode(page.encoding or "utf-8", "replace")
    except LookupError:
        return page.content.decode("utf-8", "replace")

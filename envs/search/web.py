"""Questions answered on the web: a search engine that names pages, and a tool that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Unpack

from agentrl.core.errors import RecipeError
from agentrl.core.retrieval import Hit, Retriever
from agentrl.core.tool import Tool
from agentrl.core.types import Task
from agentrl.tools.browse import Source, browse_tool
from agentrl.tools.fetch import Fetcher, FetchSettings, Page
from agentrl.tools.web_search import WebRetriever, WebSearchSettings

from . import sample
from .env import SearchEnv, SearchSettings, questions_of, sample_index
from .records import Question
from .retriever import IndexRetriever


class WebSearchEnv(SearchEnv):
    """A question to answer by searching the web and reading pages.

    Observation: the question; then for each search titles, addresses and snippets, and for each
    `browse` the readable text of the page, `part_chars` characters at a time.
    Action: `<search>query</search>`, `<browse>address</browse>` or `<answer>text</answer>`
    (`format="json"`: tool calls, with which a later part of a page can be asked for).
    Reward: as `SearchEnv`. Ends: as `SearchEnv`.
    Forks: by copying; the web itself is shared, so give both settings a `cache` where branches
    and later runs must see the same.
    Data: `train` and `eval` are question files (see `sources`); `search` says which API is asked
    (`agentrl.tools.web_search`), `fetch` how pages are fetched (`agentrl.tools.fetch`). Without
    `search` it is a small made-up web of its own (`sample`), which needs no network.
    """

    def __init__(
        self,
        *,
        search: WebSearchSettings | None = None,
        fetch: FetchSettings | None = None,
        train: str = "",
        eval: str = "",
        part_chars: int = 4000,
        **settings: Unpack[SearchSettings],
    ) -> None:
        settings.setdefault("topk", 5)
        settings.setdefault("max_turns", 10)
        settings.setdefault("max_result_chars", 4000)
        super().__init__(**settings)
        if self.rewards.get("found"):
            raise RecipeError(
                "search/web cannot pay for what is `found`: nobody knows which pages of the web "
                "support an answer; leave it out of rewards"
            )
        if search is None and (train or eval or fetch is not None):
            raise RecipeError(
                "search/web without `search` is a made-up web that has its own questions: give "
                "search, as in {provider: serper}, or leave out train, eval and fetch"
            )
        self.search_settings = search
        self.fetch_settings = fetch or FetchSettings()
        self.files = {"train": train, "eval": eval}
        self.tools: Sequence[Tool] = (
            *self.tools,
            browse_tool(self.pages, part_chars=part_chars),
        )

    @cached_property
    def retriever(self) -> Retriever:
        """The search engine."""
        if self.search_settings is None:
            return _SampleEngine(IndexRetriever(sample_index))
        engine: Retriever = _shared_engine(self.search_settings)
        return engine

    @cached_property
    def pages(self) -> Source:
        """Where pages are read from."""
        if self.search_settings is None:
            return _SamplePages()
        return _shared_pages(self.fetch_settings)

    def questions(self, split: str) -> Sequence[Question]:
        """The questions of the split's file, or of the made-up web.

        Raises:
            DataError: the file is missing or malformed.
        """
        if self.search_settings is None:
            return sample.questions(split)
        return questions_of(self.files.get(split, ""), split)

    def supporting(self, task: Task) -> frozenset[str]:
        """Not known: a search shows addresses."""
        return frozenset()

    def gold_action(self, task: Task, turn: int) -> str | None:
        """In the made-up web: search for the first page, then read page after page, then answer.

        On the real web, where nobody knows what a search finds, the answer at once.
        """
        support: Sequence[str] = () if self.search_settings is not None else task.data["support"]
        if not support:
            answer = self.call_format.answer(task.data["answers"][0])
            return answer if turn == 0 else None
        if len(support) + 2 > self.max_turns:
            return None
        if turn == 0:
            return self.call_format.call("search", {"query": task.data["queries"][0]})
        if turn <= len(support):
            return self.call_format.call("browse", {"url": sample.url_of(support[turn - 1])})
        if turn == len(support) + 1:
            return self.call_format.answer(task.data["answers"][0])
        return None


class _SampleEngine:
    """The made-up web's search engine: addresses and the first words of pages."""

    def __init__(self, index: IndexRetriever) -> None:
        self._index = index

    async def start(self) -> None:
        await self._index.start()

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        hits = await self._index.search(query, k)
        return [
            hit._replace(id=sample.url_of(hit.id), text=f"{sample.url_of(hit.id)} {_start(hit)}")
            for hit in hits
        ]


def _start(hit: Hit) -> str:
    return " ".join(hit.text.split()[:8]) + " ..."


class _SamplePages:
    """The made-up web's pages."""

    async def get(self, url: str) -> Page:
        html = sample.page(url)
        return Page(url, "text/html", "utf-8", html.encode())


@lru_cache(maxsize=8)
def _shared_engine(settings: WebSearchSettings) -> WebRetriever:
    return WebRetriever(settings)


@lru_cache(maxsize=8)
def _shared_pages(settings: FetchSettings) -> Fetcher:
    return Fetcher(settings)

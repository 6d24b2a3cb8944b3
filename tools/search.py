"""The search tool: finds passages with a retriever and shows the best ones."""

from __future__ import annotations

from agentrl.core.errors import ContractError
from agentrl.core.retrieval import ResultStyle, Retriever, told
from agentrl.core.tool import Tool


def search_tool(
    retriever: Retriever,
    *,
    topk: int = 3,
    style: ResultStyle = "documents",
    max_result_chars: int = 8000,
    timeout: float = 120.0,
) -> Tool:
    """A tool `search(query)` that shows the `topk` best passages in `max_result_chars` characters.

    It has no state, so an environment that holds it forks freely; the limit on calls in an
    episode is the environment's (`ToolEnv`'s `max_tool_calls`). `timeout` is in seconds.
    """
    if topk < 1:
        raise ContractError(f"the search tool needs topk >= 1, got {topk}")

    async def search(query: str) -> str:
        """Find passages of the corpus.

        Args:
            query: A few words that the passage holds.
        """
        hits = await retriever.search(query, topk)
        return told(hits, style=style, max_chars=max_result_chars)

    return Tool.of(search, timeout=timeout, max_result_chars=max_result_chars)

"""The search tool in an environment of somebody else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from agentrl.core.errors import ContractError, EnvError
from agentrl.core.retrieval import Hit
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task
from agentrl.tools.search import search_tool


class Shelf:
    """A retriever of three passages that finds the first k, or fails."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.asked: list[tuple[str, int]] = []

    async def start(self) -> None:
        return

    async def search(self, query: str, k: int) -> Sequence[Hit]:
        self.asked.append((query, k))
        if self.broken:
            raise EnvError("the shelf fell down")
        return [Hit(f"p{n}", f"T{n}", f"text {n}", 1.0 / n) for n in (1, 2, 3)][:k]


class Library(ToolEnv):
    """Search a shelf."""

    def prompt(self, task: Task) -> str:
        return "?"

    def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        return {"right": float(answer == "text 1")}


async def test_the_tool_shows_the_best_passages_in_either_style() -> None:
    shelf = Shelf()
    documents = await search_tool(shelf, topk=2).call({"query": "q"})
    assert documents == 'Doc 1(Title: "T1") text 1\nDoc 2(Title: "T2") text 2'
    assert await search_tool(shelf, topk=1, style="plain").call({"query": "q"}) == "text 1"
    assert shelf.asked == [("q", 2), ("q", 1)]


async def test_a_long_result_is_cut_and_says_so() -> None:
    tool = search_tool(Shelf(), topk=2, style="plain", max_result_chars=11)
    assert await tool.call({"query": "q"}) == "t ...\nt ..."


def test_its_schema_asks_for_one_query() -> None:
    tool = search_tool(Shelf())
    assert (tool.name, tool.text_parameter) == ("search", "query")
    assert tool.schema["function"]["parameters"]["required"] == ["query"]
    with pytest.raises(ContractError, match="topk >= 1, got 0"):
        search_tool(Shelf(), topk=0)


async def test_an_environment_limits_its_calls_and_forks_with_it() -> None:
    env = Library(max_tool_calls=1)
    env.tools = (search_tool(Shelf(), topk=1, style="plain"),)
    await env.reset(Task("t"), seed=0)
    twin = await env.fork()
    first = await env.step("<search>a</search>")
    assert first.observation[0].text == "<result>text 1</result>"
    refused = await env.step("<search>b</search>")
    assert "no tool calls are left" in refused.observation[0].text
    assert (await twin.step("<search>c</search>")).observation == first.observation


async def test_a_failing_retriever_is_not_shown_to_the_policy() -> None:
    env = Library()
    env.tools = (search_tool(Shelf(broken=True)),)
    await env.reset(Task("t"), seed=0)
    with pytest.raises(EnvError, match="the shelf fell down"):
        await env.step("<search>a</search>")

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from agentrl.core.errors import ContractError, DataError, EngineError, EnvError, ToolError
from agentrl.core.tool import Tool


def search(query: str, top_k: int = 3) -> str:
    """Search the corpus.

    Uses BM25.

    Args:
        query: what to look for,
            in plain words
        top_k (int): how many passages

    Returns:
        The passages.
    """
    return f"{query}/{top_k}"


class Point(BaseModel):
    x: int


def place(
    point: Point, kind: Literal["a", "b"], size: Annotated[int, Field(ge=1, description="big")]
) -> dict[str, object]:
    """Place a point."""
    return {"x": point.x, "kind": kind, "size": size}


def test_the_schema_comes_from_signature_hints_and_docstring():
    assert Tool.of(search).schema == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the corpus.\nUses BM25.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "what to look for, in plain words"},
                    "top_k": {"type": "integer", "description": "how many passages"},
                },
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }


def test_a_schema_holds_models_choices_and_bounds():
    parameters = Tool.of(place).signature.schema
    assert parameters["$defs"]["Point"]["required"] == ["x"]
    assert parameters["properties"]["kind"]["enum"] == ["a", "b"]
    assert parameters["properties"]["size"] == {
        "type": "integer",
        "minimum": 1,
        "description": "big",
    }


async def test_arguments_are_converted_and_a_result_that_is_no_text_is_json():
    assert await Tool.of(search).call({"query": "q", "top_k": "5"}) == "q/5"
    placed = await Tool.of(place).call({"point": {"x": 1}, "kind": "a", "size": 2})
    assert placed == '{"x": 1, "kind": "a", "size": 2}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "search needs the argument 'query', which is missing."),
        (
            {"query": "q", "topk": 1},
            "search has no argument 'topk'. Did you mean 'top_k'? Its arguments: query, top_k.",
        ),
        ({"query": 3}, "search: query: input should be a valid string."),
        (
            {"query": "q", "top_k": "x"},
            "search: top_k: input should be a valid integer, unable to parse string as an integer.",
        ),
        ({"<b>" * 30: 1, "query": "q"}, "search has no argument '(b)(b)"),
    ],
)
async def test_wrong_arguments_are_told_to_the_policy(arguments, message):
    with pytest.raises(ToolError) as caught:
        await Tool.of(search).call(arguments)
    assert str(caught.value).startswith(message)


async def test_a_nested_mistake_is_located():
    with pytest.raises(ToolError, match=r"^place: point\['x'\]: input should be a valid integer"):
        await Tool.of(place).call({"point": {"x": "no"}, "kind": "a", "size": 1})


async def test_a_long_result_is_cut_and_says_by_how_much():
    def long() -> str:
        """Long."""
        return "x" * 25

    text = await Tool.of(long, max_result_chars=10).call({})
    assert text == "x" * 10 + "\n[cut: 15 of 25 characters not shown]"
    assert await Tool.of(long, max_result_chars=25).call({}) == "x" * 25


async def test_a_hanging_synchronous_tool_is_left_behind_at_its_deadline():
    release = threading.Event()

    def hang() -> str:
        """Hang."""
        release.wait(10)
        return "late"

    started = time.perf_counter()
    with pytest.raises(ToolError, match=r"^hang did not answer within 0.05 s\.$"):
        await Tool.of(hang, timeout=0.05).call({})
    assert time.perf_counter() - started < 5
    release.set()


async def test_an_asynchronous_tool_that_swallows_its_cancellation_does_not_hold_the_deadline():
    cancelled = asyncio.Event()

    async def stubborn() -> str:
        """Stubborn."""
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.sleep(0.2)
        return "late"

    started = time.perf_counter()
    with pytest.raises(ToolError, match="did not answer"):
        await Tool.of(stubborn, timeout=0.02).call({})
    assert time.perf_counter() - started < 0.2
    await asyncio.wait_for(cancelled.wait(), 1)


def test_a_deadline_holds_in_the_event_loop_of_any_thread():
    def sleepy() -> str:
        """Sleep."""
        time.sleep(0.3)
        return "late"

    found: list[str] = []

    def work() -> None:
        try:
            asyncio.run(Tool.of(sleepy, timeout=0.02).call({}))
        except ToolError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert found == ["sleepy did not answer within 0.02 s."]


async def test_many_hanging_tools_do_not_starve_a_quick_one():
    release = threading.Event()

    def hang() -> str:
        """Hang."""
        release.wait(10)
        return "late"

    def quick() -> str:
        """Quick."""
        return "now"

    tool = Tool.of(hang, timeout=0.05)
    hanging = [asyncio.create_task(tool.call({})) for _ in range(64)]
    await asyncio.sleep(0)
    assert await Tool.of(quick, timeout=5).call({}) == "now"
    outcomes = await asyncio.gather(*hanging, return_exceptions=True)
    assert all(isinstance(one, ToolError) for one in outcomes)
    release.set()


async def test_what_a_tool_raises_is_a_refusal_or_a_failure_of_the_environment():
    def fails(kind: str) -> str:
        """Fail."""
        kinds = {
            "tool": ToolError("not this way"),
            "value": ValueError("bad number"),
            "zero": ZeroDivisionError("division by zero"),
            "engine": EngineError("died"),
            "network": ConnectionError("refused"),
            "bug": AttributeError("no such thing"),
            "stop": StopIteration("x"),
            "exit": SystemExit(1),
            "data": DataError("x.jsonl:3: no id"),
        }
        raise kinds[kind]

    tool = Tool.of(fails)
    with pytest.raises(ToolError, match=r"^not this way$"):
        await tool.call({"kind": "tool"})
    with pytest.raises(ToolError, match=r"^fails: ValueError: bad number$"):
        await tool.call({"kind": "value"})
    with pytest.raises(ToolError, match=r"^fails: ZeroDivisionError: division by zero$"):
        await tool.call({"kind": "zero"})
    with pytest.raises(EngineError, match=r"^died$"):
        await tool.call({"kind": "engine"})
    with pytest.raises(EnvError, match=r"^tool fails failed: ConnectionError: refused$"):
        await tool.call({"kind": "network"})
    with pytest.raises(EnvError, match="AttributeError"):
        await tool.call({"kind": "bug"})
    with pytest.raises(EnvError, match="StopIteration"):
        await tool.call({"kind": "stop"})
    with pytest.raises(EnvError, match="SystemExit: 1"):
        await tool.call({"kind": "exit"})
    with pytest.raises(DataError, match="no id"):
        await tool.call({"kind": "data"})


async def test_cancelling_a_call_cancels_an_asynchronous_tool():
    ended = asyncio.Event()

    async def slow() -> str:
        """Slow."""
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()
        return "late"

    task = asyncio.create_task(Tool.of(slow).call({}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 1)


def test_a_function_that_cannot_be_a_tool_is_refused_with_the_reason():
    def bare(x):
        """Bare."""

    def star(*args: int) -> None:
        """Star."""

    def silent(x: int) -> None: ...

    def odd(x: threading.Event) -> None:
        """Odd."""

    class Holder:
        def method(self, x: int) -> None:
            """Method."""

    with pytest.raises(ContractError, match="parameter 'x' has no type hint"):
        Tool.of(bare)
    with pytest.raises(ContractError, match="cannot be given by name"):
        Tool.of(star)
    with pytest.raises(ContractError, match="no docstring"):
        Tool.of(silent)
    with pytest.raises(ContractError, match="no type that arguments can have"):
        Tool.of(odd)
    with pytest.raises(ContractError, match="give it bound, from a `tools` property"):
        Tool.of(Holder.method)
    with pytest.raises(ContractError, match="no name that a policy can write"):
        Tool.of(lambda: "x")
    with pytest.raises(ContractError, match="timeout > 0"):
        Tool.of(search, timeout=0)


async def test_bound_methods_share_a_signature_and_can_be_bound_anew():
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def up(self, by: int) -> str:
            """Count up."""
            self.n += by
            return str(self.n)

    one, other = Counter(), Counter()
    tool = Tool.of(one.up)
    assert tool.text_parameter == "by"
    assert tool.signature is Tool.of(other.up).signature
    moved = tool.rebound(one, other)
    assert await moved.call({"by": 2}) == "2"
    assert (one.n, other.n) == (0, 2)
    assert tool.rebound(other, one) is tool


def test_the_text_parameter_is_the_only_required_scalar():
    def two(a: str, b: str) -> str:
        """Two."""
        return a + b

    def many(a: list[str]) -> str:
        """Many."""
        return ""

    assert Tool.of(search).text_parameter == "query"
    assert Tool.of(two).text_parameter is None
    assert Tool.of(many).text_parameter is None


async def test_a_decorated_tool_is_run_as_what_it_is_now():
    def awaited_inside(function):
        @functools.wraps(function)
        def wrapper(x: int) -> str:
            return asyncio.run(function(x))

        return wrapper

    async def double(x: int) -> str:
        """Double."""
        return str(2 * x)

    class Doubler:
        async def __call__(self, x: int) -> str:
            """Double."""
            return str(2 * x)

    def forgetful(x: int) -> object:
        """Forget to await."""
        return double(x)

    assert await Tool.of(awaited_inside(double)).call({"x": 2}) == "4"
    assert await Tool.of(Doubler(), name="doubler").call({"x": 2}) == "4"
    with pytest.raises(EnvError, match="returned a coroutine: define it with `async def`"):
        await Tool.of(forgetful).call({"x": 2})

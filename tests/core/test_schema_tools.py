"""Tools whose schemas come from elsewhere: what a call may hold."""

from __future__ import annotations

import pytest

from agentrl.core.errors import ContractError, ToolError
from agentrl.core.formats import make_format
from agentrl.core.tool import Tool

SCHEMA = {
    "type": "object",
    "title": "Arguments",
    "properties": {
        "count": {"type": "integer", "minimum": 3},
        "ways": {"type": "array", "items": {"$ref": "#/$defs/way"}},
        "any": True,
    },
    "required": ["count"],
    "$defs": {"way": {"enum": ["up", "down"]}},
}


async def played(**arguments: object) -> object:
    return arguments


def tool(parameters: object = SCHEMA, **settings: object) -> Tool:
    given = {"name": "play", "description": "Play.", "parameters": parameters, **settings}
    return Tool.from_schema(played, **given)


async def test_a_call_that_fits_the_schema_reaches_the_function() -> None:
    assert await tool().call({"count": 3, "ways": ["up"]}) == '{"count": 3, "ways": ["up"]}'
    assert (
        await tool().call({"count": "7", "any": {"x": None}}) == '{"count": 7, "any": {"x": null}}'
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 2}, r"^play: count: 2 is less than the minimum of 3\.$"),
        ({"count": "many"}, "play: count: input should be a valid integer"),
        ({"count": 3, "ways": ["left"]}, r"ways: 'left' is not one of \['up', 'down'\]"),
        ({"count": 3, "cuont": 1}, r"no argument 'cuont'\. Did you mean 'count'\?"),
        ({}, "needs the argument 'count'"),
    ],
)
def test_a_call_that_does_not_is_refused_in_words_for_the_policy(arguments, words) -> None:
    with pytest.raises(ToolError, match=words):
        tool().validate(arguments)


def test_the_policy_is_shown_the_schema_as_it_is() -> None:
    shown = tool().schema["function"]
    assert shown == {"name": "play", "description": "Play.", "parameters": SCHEMA}
    assert '"minimum": 3' in make_format("json", [tool()]).instructions()


def test_a_tag_fills_the_only_required_parameter() -> None:
    parsed = make_format("xml", [tool()]).parse("<play>12</play>")
    assert parsed.calls[0].arguments == {"count": "12"}
    assert tool({"properties": {}}).text_parameter is None


def test_nothing_is_fetched_for_a_reference_to_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", None)
    remote = {"properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    with pytest.raises(ToolError, match="x: the schema cannot be applied"):
        tool(remote).validate({"x": 1})


def test_a_schema_that_calls_itself_ends() -> None:
    endless = {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    with pytest.raises(ToolError, match="cannot be applied"):
        tool(endless).validate({"x": 1})


@pytest.mark.parametrize(
    "parameters",
    [{"type": "string"}, {"properties": []}, {"properties": {"x": {"type": "nothing"}}}],
)
def test_what_is_no_schema_of_an_object_is_refused(parameters) -> None:
    with pytest.raises(ContractError, match="tool play"):
        tool(parameters)


@pytest.mark.parametrize("settings", [{"name": "a b"}, {"timeout": 0}, {"max_result_chars": 0}])
def test_names_and_limits_are_checked_as_for_any_tool(settings) -> None:
    with pytest.raises(ContractError):
        tool(**settings)

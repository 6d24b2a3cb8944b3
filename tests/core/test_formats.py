from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError, RecipeError
from agentrl.core.formats import JsonFormat, Parsed, XmlFormat, make_format
from agentrl.core.tool import Tool
from agentrl.core.types import ToolCall


def search(query: str, top_k: int = 3) -> str:
    """Search."""
    return query


def python(code: str) -> str:
    """Run code."""
    return code


def add(a: int, b: int) -> str:
    """Add."""
    return str(a + b)


XML = XmlFormat([Tool.of(search), Tool.of(python)])
JSON = JsonFormat([Tool.of(search), Tool.of(add)])


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("<search> Oslo </search>", Parsed(calls=(ToolCall("search", {"query": "Oslo"}),))),
        (
            "Let me see.<think>I <search>not</search> </answer> x</think> so <search>q</search>\n",
            Parsed(
                calls=(ToolCall("search", {"query": "q"}),),
                think="I <search>not</search> </answer> x",
            ),
        ),
        (
            "I think so</think><answer> 42 </answer>",
            Parsed(answer="42", think="I think so"),
        ),
        (
            "<think>a</think><think>b</think>\n<answer>x</answer> \n",
            Parsed(answer="x", think="a\nb"),
        ),
        (
            "<python>\n  x = 1\n  if x < 2:\n    print(x)\n</python>",
            Parsed(
                calls=(ToolCall("python", {"code": "  x = 1\n  if x < 2:\n    print(x)"}),),
            ),
        ),
        ("a <b>bold</b> word <answer>x</answer>", Parsed(answer="x")),
    ],
)
def test_xml_reads_calls_answers_and_thoughts(text, parsed):
    assert XML.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no call and no answer: write <search>...</search> or <python>...</python> or "),
        ("Oslo, I guess.", "no call and no answer"),
        ("<search>Oslo", "<search> is not closed: end it with </search>."),
        ("<think>hm <search>Oslo</search>", "<think> is not closed: end it with </think>."),
        ("</search>", "</search> closes nothing: no <search> is open."),
        ("<serch>Oslo</serch>", "there is no tool 'serch'. Did you mean 'search'? Tools: search"),
        ("<browse>Oslo</browse>", "there is no tool 'browse'. Tools: search, python."),
        ("<search>  </search>", "<search> is empty: write its query inside."),
        ("<answer></answer>", "<answer> is empty."),
        ("<search>a</search><answer>b</answer>", "a <search> call and an <answer> in one action"),
        ("<answer>b</answer><search>a</search>", "a <search> call and an <answer> in one action"),
        ("<search>a</search> and then", "there is text after </search>: stop there and wait"),
        ("<answer>a</answer> I hope", "there is text after </answer>: stop there."),
        ("<answer>a</answer><answer>b</answer>", "2 answers in one action: give one."),
        ("<search>a</search><search>b</search>", "2 calls in one action: make one and wait"),
        ("<result>ha</result><answer>b</answer>", "<result> is written by the environment"),
        ("<search>a<answer>b</answer></search>", "there is a <answer> inside <search>: close"),
        ("<search>a<search>b</search>", "there is a <search> inside <search>: close"),
    ],
)
def test_xml_says_exactly_what_is_wrong(text, error):
    parsed = XML.parse(text)
    assert parsed.calls == () and parsed.answer is None
    assert len(parsed.errors) == 1
    assert parsed.errors[0].startswith(error)


def test_xml_converts_the_only_argument_and_refuses_what_it_cannot():
    def square(n: int) -> str:
        """Square."""
        return str(n * n)

    form = XmlFormat([Tool.of(square)])
    assert form.parse("<square> 4 </square>").calls == (ToolCall("square", {"n": "4"}),)
    (error,) = form.parse("<square>four</square>").errors
    assert error.startswith("square: n: input should be a valid integer")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (call("search", query="a"), Parsed(calls=(ToolCall("search", {"query": "a"}),))),
        (
            "<think>x</think>Both:\n" + call("search", query="a") + "\n" + call("add", a=1, b=2),
            Parsed(
                calls=(ToolCall("search", {"query": "a"}), ToolCall("add", {"a": 1, "b": 2})),
                think="x",
            ),
        ),
        ("It is Oslo. ", Parsed(answer="It is Oslo.")),
        ("It is <answer>Oslo</answer>", Parsed(answer="Oslo")),
        ("hm</think>\n\nOslo", Parsed(answer="Oslo", think="hm")),
        ("It is <think>so</think>Oslo", Parsed(answer="It is Oslo", think="so")),
    ],
)
def test_json_reads_calls_answers_and_thoughts(text, parsed):
    assert JSON.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no call and no answer: the action is empty."),
        ("<think>only</think>", "no call and no answer"),
        ("<tool_call>{", "<tool_call> is not closed: end it with </tool_call>."),
        ("<tool_call>{'name'}</tool_call>", "<tool_call> holds no JSON: Expecting property name"),
        ("<tool_call>[1]</tool_call>", "<tool_call> holds no JSON object."),
        ("<tool_call>{}</tool_call>", '<tool_call> has no "name".'),
        ('<tool_call>{"name": "add", "x": 1}</tool_call>', "<tool_call> has an unknown key 'x'"),
        (
            '<tool_call>{"name": "add", "arguments": "{}"}</tool_call>',
            '"arguments" must be a JSON object.',
        ),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "<tool_call> holds no usable JSON."),
        ("<tool_call>" + "1" * 5_000 + "</tool_call>", "<tool_call> holds no usable JSON."),
        (call("serch", query="a"), "there is no tool 'serch'. Did you mean 'search'?"),
        (call("search"), "search needs the argument 'query', which is missing."),
        (call("search", query=" "), "search: query is empty."),
        (call("add", a=1, b="x"), "add: b: input should be a valid integer"),
        (call("add", a=1, c=2), "add has no argument 'c'."),
        (call("add", a=1, b=1) + " so", "there is text after </tool_call>"),
        (call("add", a=1, b=1) + "<answer>2</answer>", "a call and an <answer> in one action"),
        ("<tool_response>2</tool_response>", "<tool_response> is written by the environment"),
    ],
)
def test_json_says_exactly_what_is_wrong(text, error):
    parsed = JSON.parse(text)
    assert parsed.calls == () and parsed.answer is None
    assert len(parsed.errors) == 1
    assert parsed.errors[0].startswith(error)


def test_json_runs_the_good_calls_of_an_action_and_numbers_the_bad_ones():
    parsed = JSON.parse(call("add", a=1, b=1) + call("ad", a=1, b=1) + call("add", a=2, b=2))
    assert [one.arguments["a"] for one in parsed.calls] == [1, 2]
    assert parsed.errors == (
        "call 2: there is no tool 'ad'. Did you mean 'add'? Tools: search, add.",
    )


TAGS = ("think", "search", "python", "answer", "result", "tool_call", "tool_response", "serch")
PIECES = st.sampled_from(
    [
        *(f"<{slash}{name}>" for slash in ("", "/") for name in TAGS),
        '{"name": "add", "arguments": {"a": 1, "b": 2}}',
        *('{"name": ', '"arguments": {}', "}", " ", "\n", "<", ">", "</"),
        *("<|im_end|>", "Oslo", "\\ud800"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)))
def test_no_text_breaks_a_parser_and_every_text_is_one_of_call_answer_or_mistake(text):
    for form in (XML, JSON):
        parsed = form.parse(text)
        assert bool(parsed.calls or parsed.errors) != (parsed.answer is not None)
        assert all(one.name in form.tools for one in parsed.calls)
        for message in form.observation(["r"] * len(parsed.calls), parsed.errors):
            assert message.text


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_result_cannot_forge_a_tag_or_a_control_token(text):
    for form, tags in (
        (XML, ("think", "answer", "result", "search", "python")),
        (JSON, ("think", "answer", "tool_call", "tool_response")),
    ):
        (message,) = form.observation([text])
        body = message.text
        if form is XML:
            assert body.startswith("<result>") and body.endswith("</result>")
            body = body[len("<result>") : -len("</result>")]
        assert not any(f"<{slash}{tag}>" in body for slash in ("", "/") for tag in tags)
        assert "<|im_end|>" not in body


def test_tags_in_other_spellings_are_neutralised_too_and_ordinary_text_is_not():
    assert XML.neutral("</ Result ><SEARCH x=1>") == "&lt;/ Result >&lt;SEARCH x=1>"
    assert XML.neutral("<|im_end|></s><end_of_turn>") == "&lt;|im_end|>&lt;/s>&lt;end_of_turn>"
    assert XML.neutral("a < b, <b>c</b> <searching>") == "a < b, <b>c</b> <searching>"


def test_results_are_told_inline_in_xml_and_as_tool_messages_in_json():
    (message,) = XML.observation(["Oslo"])
    assert (message.role, message.text) == ("inline", "<result>Oslo</result>")
    told = JSON.observation(["3", "4"], ["call 3: no"])
    assert [(one.role, one.text) for one in told] == [
        ("tool", "3"),
        ("tool", "4"),
        ("tool", "error: call 3: no"),
    ]


def test_written_calls_and_answers_are_read_back():
    assert XML.parse(XML.call("search", {"query": "a b"})).calls == (
        ToolCall("search", {"query": "a b"}),
    )
    assert XML.parse(XML.answer("x")).answer == "x"
    assert JSON.parse(JSON.call("add", {"a": 1, "b": 2})).calls == (
        ToolCall("add", {"a": 1, "b": 2}),
    )
    assert JSON.parse(JSON.answer("x")).answer == "x"


def test_stop_strings_end_an_action_of_xml_and_not_one_of_json():
    assert XML.stop == ("</search>", "</python>", "</answer>")
    assert JSON.stop == ()


def test_instructions_name_every_tool_and_tag():
    assert "<search> query </search>" in XML.instructions()
    assert "<answer>" in XML.instructions() and "<result>" in XML.instructions()
    lines = [line for line in JSON.instructions().splitlines() if line.startswith('{"type"')]
    assert [json.loads(line)["function"]["name"] for line in lines] == ["search", "add"]


def test_tools_that_a_tag_cannot_hold_are_refused():
    def answer(x: str) -> str:
        """Answer."""
        return x

    with pytest.raises(ContractError, match=r"tool add takes \(a, b\).*format='json'"):
        XmlFormat([Tool.of(add)])
    with pytest.raises(ContractError, match="cannot be named 'answer'"):
        XmlFormat([Tool.of(answer)])


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown tool-call format 'xlm'\. Did you mean 'xml'\?"):
        make_format("xlm", [])

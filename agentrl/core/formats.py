"""Tool-call formats: how the policy's text asks for tools and how their results are told.

Only the policy's own text is ever parsed, and nothing inside `<think>` counts. Sources of the
tags: Search-R1 (arXiv:2503.09516), ARPO (arXiv:2507.19849); of the JSON calls: the chat templates
of Hermes and Qwen.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from agentrl.core.env import Observation
from agentrl.core.errors import ContractError, RecipeError, ToolError, nearest
from agentrl.core.tool import Tool, quoted
from agentrl.core.types import Message, ToolCall

FormatName: TypeAlias = Literal["xml", "json"]

_UNKNOWN_TAG = re.compile(r"<(\w{1,40})>")
# The renderer turns text that spells a special token into it: those of Qwen, Llama and Gemma.
_CONTROL = re.compile(
    r"<(?=\|[^<>|\n]{1,40}\|>|/?s>|(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>)"
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an action asks for: calls or an answer, and every mistake in it, worded for the policy.

    An action with a mistake has no answer; it may still have calls that were well formed.
    """

    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    errors: tuple[str, ...] = ()
    think: str = ""


class _Block(NamedTuple):
    name: str
    body: str


class _MalformedError(Exception):
    """The first mistake in an action's structure."""


class Format(ABC):
    """Reads actions and writes observations for a fixed set of tools."""

    reserved: ClassVar[tuple[str, ...]]
    calls_per_action: ClassVar[int | None] = None

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._tags = tuple(dict.fromkeys((*self.reserved, *self._call_tags())))
        names = "|".join(map(re.escape, self._tags))
        self._tag = re.compile(rf"<(/?)({names})>")
        self._tag_like = re.compile(rf"<(?=\s*/?\s*(?:{names})\b)", re.IGNORECASE)

    @property
    @abstractmethod
    def stop(self) -> tuple[str, ...]:
        """Strings that end an action, kept in it."""

    @abstractmethod
    def instructions(self) -> str:
        """A system prompt that describes the tools and how to call them."""

    @abstractmethod
    def observation(self, results: Sequence[str], errors: Sequence[str] = ()) -> Observation:
        """The messages that tell the calls' results, in order, and then the mistakes."""

    @abstractmethod
    def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """The text of a well-formed call: what a gold action or a demonstration writes."""

    @abstractmethod
    def answer(self, text: str) -> str:
        """The text of a well-formed answer."""

    @abstractmethod
    def _call_tags(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _read(self, blocks: Sequence[_Block], think: str) -> Parsed: ...

    def parse(self, text: str) -> Parsed:
        """What `text` asks for. Never raises, whatever the text."""
        think: list[str] = []
        try:
            blocks = self._blocks(text, think)
            return self._read(blocks, "\n".join(think))
        except _MalformedError as error:
            return Parsed(errors=(str(error),), think="\n".join(think))

    def neutral(self, text: str) -> str:
        """`text` in which no tag of this format, and no control token, can be read as one."""
        return without_control_tokens(self._tag_like.sub("&lt;", text))

    def _blocks(self, text: str, think: list[str]) -> list[_Block]:
        """Tagged blocks and the free text between them (name ""), in order."""
        blocks: list[_Block] = []
        at = 0
        # A chat template may open the thought itself; the action then only closes it.
        closing = text.find("</think>")
        if closing >= 0 and "<think>" not in text[:closing]:
            think.append(text[:closing].strip())
            at = closing + len("</think>")
        while match := self._tag.search(text, at):
            blocks.append(_Block("", text[at : match.start()]))
            slash, name = match[1], match[2]
            if slash:
                raise _MalformedError(f"</{name}> closes nothing: no <{name}> is open.")
            end = text.find(f"</{name}>", match.end())
            if end < 0:
                raise _MalformedError(f"<{name}> is not closed: end it with </{name}>.")
            body = text[match.end() : end]
            at = end + len(name) + 3
            if name == "think":
                think.append(body.strip())
            else:
                if inner := self._tag.search(body):
                    raise _MalformedError(
                        f"there is a {inner[0]} inside <{name}>: close <{name}> before it."
                    )
                blocks.append(_Block(name, body))
        blocks.append(_Block("", text[at:]))
        return [block for block in blocks if block.name or block.body.strip()]

    def _arguments(self, name: str, arguments: Mapping[str, object]) -> ToolCall:
        """A call whose tool exists and whose arguments fit it."""
        if name not in self.tools:
            known = ", ".join(self.tools) or "none"
            raise _MalformedError(
                f"there is no tool {quoted(name)}.{nearest(name, self.tools)} Tools: {known}."
            )
        tool = self.tools[name]
        try:
            tool.validate(arguments)
        except ToolError as error:
            raise _MalformedError(str(error)) from error
        for key in tool.signature.required:
            value = arguments[key]
            if isinstance(value, str) and not value.strip():
                raise _MalformedError(f"{name}: {key} is empty.")
        return ToolCall(name, dict(arguments))


def _one_answer(blocks: Sequence[_Block]) -> str:
    """The answer of an action whose only blocks are free text and `<answer>`."""
    answers = [block.body.strip() for block in blocks if block.name == "answer"]
    if len(answers) > 1:
        raise _MalformedError(f"{len(answers)} answers in one action: give one.")
    if not answers[0]:
        raise _MalformedError("<answer> is empty.")
    if blocks[-1].name != "answer":
        raise _MalformedError("there is text after </answer>: stop there.")
    return answers[0]


class XmlFormat(Format):
    """One call per action, as a tag with the tool's name around its only argument.

    `<think>` and free text may come before `<search>...</search>` or `<answer>...</answer>`;
    nothing may follow. A result continues the policy's own turn as `<result>...</result>`.
    """

    reserved = ("think", "answer", "result")
    calls_per_action = 1

    def __init__(self, tools: Iterable[Tool]) -> None:
        super().__init__(tools)
        for name, tool in self.tools.items():
            if name in self.reserved:
                raise ContractError(f"a tool of the xml format cannot be named {name!r}")
            if tool.text_parameter is None:
                raise ContractError(
                    f"tool {name} takes ({', '.join(tool.parameters)}), but a tag of the xml "
                    "format holds one text or number: use format='json', or give the other "
                    "parameters defaults"
                )

    @property
    def stop(self) -> tuple[str, ...]:
        """The closing tags of the tools and of the answer."""
        return tuple(f"</{name}>" for name in (*self.tools, "answer"))

    def _call_tags(self) -> tuple[str, ...]:
        return tuple(self.tools)

    def _read(self, blocks: Sequence[_Block], think: str) -> Parsed:
        named = [block for block in blocks if block.name]
        if not named:
            raise _MalformedError(self._nothing(blocks))
        if any(block.name == "result" for block in named):
            raise _MalformedError("<result> is written by the environment, never by you.")
        calls = [block for block in named if block.name != "answer"]
        if calls and len(calls) < len(named):
            raise _MalformedError(
                f"a <{calls[0].name}> call and an <answer> in one action: do one of the two."
            )
        if not calls:
            return Parsed(answer=_one_answer(blocks), think=think)
        if len(calls) > 1:
            raise _MalformedError(
                f"{len(calls)} calls in one action: make one and wait for its <result>."
            )
        if blocks[-1].name == "":
            raise _MalformedError(
                f"there is text after </{calls[0].name}>: stop there and wait for the <result>."
            )
        name, body = calls[0]
        parameter = self.tools[name].text_parameter
        assert parameter is not None
        if not body.strip():
            raise _MalformedError(f"<{name}> is empty: write its {parameter} inside.")
        return Parsed(calls=(self._arguments(name, {parameter: _content(body)}),), think=think)

    def _nothing(self, blocks: Sequence[_Block]) -> str:
        ways = " or ".join(f"<{name}>...</{name}>" for name in (*self.tools, "answer"))
        text = "\n".join(block.body for block in blocks)
        for name in _UNKNOWN_TAG.findall(text):
            if f"</{name}>" in text or nearest(name, self.tools):
                known = ", ".join(self.tools) or "none"
                return f"there is no tool {name!r}.{nearest(name, self.tools)} Tools: {known}."
        return f"no call and no answer: write {ways}."

    def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """`<name>value</name>`."""
        (value,) = arguments.values()
        return f"<{name}>{value}</{name}>"

    def answer(self, text: str) -> str:
        """`<answer>text</answer>`."""
        return f"<answer>{text}</answer>"

    def observation(self, results: Sequence[str], errors: Sequence[str] = ()) -> Observation:
        """One inline message that continues the policy's turn."""
        texts = [self.neutral(result) for result in results]
        texts += [f"error: {error}" for error in errors]
        return tuple(Message.of("inline", f"<result>{text}</result>") for text in texts)

    def instructions(self) -> str:
        """The tags, one line for each tool."""
        lines = ["Think inside <think> and </think> whenever you need to."]
        for name, tool in self.tools.items():
            said = tool.description.replace("\n", " ")
            lines.append(
                f"To use the tool {name}, write <{name}> {tool.text_parameter} </{name}> and stop: "
                f"its result comes between <result> and </result>. {said}"
            )
        lines.append("When you know the answer, write <answer> answer </answer> and stop.")
        return "\n".join(lines)


class JsonFormat(Format):
    """Any number of `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, run together.

    An action without a call is the answer; `<answer>...</answer>` in it, if present, is.
    """

    reserved = ("think", "answer", "tool_call", "tool_response")

    @property
    def stop(self) -> tuple[str, ...]:
        """None: the policy's end of turn ends an action."""
        return ()

    def _call_tags(self) -> tuple[str, ...]:
        return ()

    def _read(self, blocks: Sequence[_Block], think: str) -> Parsed:
        names = [block.name for block in blocks]
        if not blocks:
            raise _MalformedError("no call and no answer: the action is empty.")
        if "tool_response" in names:
            raise _MalformedError("<tool_response> is written by the environment, never by you.")
        if "answer" in names and "tool_call" in names:
            raise _MalformedError("a call and an <answer> in one action: do one of the two.")
        if "answer" in names:
            return Parsed(answer=_one_answer(blocks), think=think)
        if "tool_call" not in names:
            text = "".join(block.body for block in blocks)
            return Parsed(answer=text.strip(), think=think)
        first = names.index("tool_call")
        if "" in names[first:]:
            raise _MalformedError(
                "there is text after </tool_call>: only further calls may follow a call."
            )
        calls: list[ToolCall] = []
        errors: list[str] = []
        bodies = [block.body for block in blocks if block.name == "tool_call"]
        for number, body in enumerate(bodies, 1):
            try:
                calls.append(self._call_of(body))
            except _MalformedError as error:
                errors.append(f"call {number}: {error}" if len(bodies) > 1 else str(error))
        return Parsed(calls=tuple(calls), errors=tuple(errors), think=think)

    def _call_of(self, body: str) -> ToolCall:
        wanted = '{"name": "...", "arguments": {...}}'
        try:
            data = json.loads(body)
        except json.JSONDecodeError as error:
            said = f"{error.msg.removesuffix(' at')} at character {error.pos}"
            raise _MalformedError(f"<tool_call> holds no JSON: {said}. Write {wanted}.") from error
        except (ValueError, RecursionError) as error:
            raise _MalformedError(f"<tool_call> holds no usable JSON. Write {wanted}.") from error
        if not isinstance(data, dict):
            raise _MalformedError(f"<tool_call> holds no JSON object. Write {wanted}.")
        for key in data:
            if key not in ("name", "arguments"):
                raise _MalformedError(
                    f"<tool_call> has an unknown key {quoted(key)}. Write {wanted}."
                )
        name, arguments = data.get("name"), data.get("arguments", {})
        if not isinstance(name, str):
            raise _MalformedError(f'<tool_call> has no "name". Write {wanted}.')
        if not isinstance(arguments, dict):
            raise _MalformedError(f'"arguments" must be a JSON object. Write {wanted}.')
        return self._arguments(name, arguments)

    def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """`<tool_call>` around its JSON."""
        body = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
        return f"<tool_call>\n{body}\n</tool_call>"

    def answer(self, text: str) -> str:
        """The text itself, inside `<answer>`."""
        return f"<answer>{text}</answer>"

    def observation(self, results: Sequence[str], errors: Sequence[str] = ()) -> Observation:
        """One tool message for each result and mistake."""
        texts = [self.neutral(result) for result in results]
        return tuple(
            Message.of("tool", text) for text in (*texts, *(f"error: {one}" for one in errors))
        )

    def instructions(self) -> str:
        """The tools' schemas, one JSON object a line, and the form of a call."""
        schemas = "\n".join(
            json.dumps(tool.schema, ensure_ascii=False) for tool in self.tools.values()
        )
        return (
            "You may call these tools, one JSON schema a line:\n"
            f"<tools>\n{schemas}\n</tools>\n"
            "A call is a JSON object inside <tool_call> and </tool_call>:\n"
            '<tool_call>\n{"name": "<name>", "arguments": {<arguments>}}\n</tool_call>\n'
            "Several may follow each other; nothing may follow the last. When you know the "
            "answer, write <answer> answer </answer> instead."
        )


def without_control_tokens(text: str) -> str:
    """`text` in which nothing can be read as a control token of Qwen, Llama or Gemma."""
    return _CONTROL.sub("&lt;", text)


def _content(body: str) -> str:
    """A tag's text: stripped, but with the indentation of code in several lines kept."""
    body = body.strip("\r\n").rstrip()
    return body if "\n" in body else body.strip()


def make_format(name: str, tools: Iterable[Tool]) -> Format:
    """The format of that name for `tools`.

    Raises:
        RecipeError: no format has that name.
    """
    formats: dict[str, type[Format]] = {"xml": XmlFormat, "json": JsonFormat}
    if name not in formats:
        raise RecipeError(
            f"unknown tool-call format {name!r}.{nearest(name, formats)} "
            f"Known: {', '.join(formats)}."
        )
    return formats[name](tools)

"""Actions that are free text with a final answer in it, with or without calls of tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentrl.core.env import Observation
from agentrl.core.formats import Format, JsonFormat, Parsed, XmlFormat
from agentrl.core.tool import Tool
from agentrl.core.types import Message
from agentrl.graders.math_extract import Marker, extract_answer


class _FinalText(Format):
    """Mixed into a format: an action without a call is an answer if it holds a final one."""

    accept: Sequence[Marker]
    asked: str

    def parse(self, text: str) -> Parsed:
        """Calls, or the whole text as the answer, or what is missing."""
        parsed = super().parse(text) if self.tools else Parsed()
        if parsed.calls:
            return parsed
        if extract_answer(text, self.accept) is not None:
            return Parsed(answer=text, think=parsed.think)
        # Without a call the format's own complaint is about an answer in other marks.
        asks = any(f"<{name}>" in text for name in (*self.tools, "tool_call"))
        return Parsed(
            errors=parsed.errors
            if asks and parsed.errors
            else (f"no final answer was found. {self.asked}".strip(),)
        )

    def instructions(self) -> str:
        """How to call the tools, where there are any, and where the answer is to stand."""
        calls = super().instructions() if self.tools else ""  # type: ignore[safe-super]
        *before, _ = [*calls.splitlines(), ""]
        kept = [line for line in before if "<answer>" not in line]
        return "\n".join(part for part in (*kept, self.asked) if part)

    def observation(self, results: Sequence[str], errors: Sequence[str] = ()) -> Observation:
        """As the format tells it; without tools a message of the user's."""
        if not self.tools:
            return tuple(Message.of("user", f"error: {one}") for one in errors)
        return super().observation(results, errors)  # type: ignore[safe-super]


class FinalXml(_FinalText, XmlFormat):
    """`<python>...</python>`, or a text with a final answer."""


class FinalJson(_FinalText, JsonFormat):
    """Calls as JSON, or a text with a final answer."""


def make_final_format(
    name: str, tools: Iterable[Tool], *, accept: Sequence[Marker], asked: str
) -> Format:
    """The format `name` for `tools`, with answers under the markers `accept`."""
    made = FinalJson(tools) if name == "json" else FinalXml(tools)
    made.accept, made.asked = accept, asked
    return made

"""How a question is put to the policy, and where its answer is to stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from agentrl.graders.math_extract import extract_answer

PromptStyle: TypeAlias = Literal["plain", "tag", "boxed", "final"]

_ASKED: Final[Mapping[PromptStyle, str]] = {
    "plain": "",
    "tag": (
        "Answer in as few words as possible, between <answer> and </answer>, as in "
        "<answer> Lisbon </answer>. You may reason before it."
    ),
    "boxed": (
        "Answer in as few words as possible, within \\boxed{}, as in \\boxed{Lisbon}. You may "
        "reason before it."
    ),
    "final": (
        "Reason first. Then end with a line that starts with FINAL ANSWER: and holds nothing but "
        "the answer: a number, as few words as possible, or a list of these separated by commas. "
        "Write numbers in digits, without separators of thousands and without a unit unless the "
        "question asks for one. Write texts without articles and abbreviations."
    ),
}
_FINAL = re.compile(r"FINAL ANSWER:[ \t]*(\S[^\n]*)", re.IGNORECASE)
_GOLD: Final[Mapping[PromptStyle, str]] = {
    "plain": "{}",
    "tag": "<answer>{}</answer>",
    "boxed": "\\boxed{{{}}}",
    "final": "FINAL ANSWER: {}",
}


def question_prompt(question: str, style: PromptStyle) -> str:
    """The user message that asks `question`; wordings are ours.

    `"final"` asks for what GAIA's grader needs (arXiv:2311.12983), and for its mark.
    """
    asked = _ASKED[style]
    return f"{question}\n\n{asked}" if asked else question


def stated_answer(action: str, style: PromptStyle) -> str | None:
    """The last answer in `action` that stands where the prompt asks for it; None: there is none.

    Nothing inside `<think>` counts, and nothing after a thought that is left open.
    """
    if style == "tag":
        return extract_answer(action, ("tag",))
    if style == "boxed":
        return extract_answer(action, ("boxed",))
    opened, closed = action.rfind("<think>"), action.rfind("</think>")
    said = "" if opened > closed else action[closed + len("</think>") :] if closed >= 0 else action
    if style == "final":
        found = _FINAL.findall(said)
        said = found[-1] if found else ""
    return said.strip() or None


def gold_text(answer: str, style: PromptStyle) -> str:
    """An action that gives `answer` and nothing else."""
    return _GOLD[style].format(answer)

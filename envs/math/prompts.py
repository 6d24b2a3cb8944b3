"""How a problem is put to the policy, and where its answer is to stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from agentrl.graders.math_extract import Marker

PromptStyle: TypeAlias = Literal["boxed", "hash", "tag", "plain"]

ACCEPTED: Final[Mapping[PromptStyle, tuple[Marker, ...]]] = {
    "boxed": ("boxed",),
    "hash": ("hash",),
    "tag": ("tag",),
    "plain": ("boxed", "hash", "tag", "phrase", "free"),
}
"""The markers under which an answer counts: those that the prompt asks for."""

ASKED: Final[Mapping[PromptStyle, str]] = {
    "boxed": "Reason step by step, and put your final answer within \\boxed{}.",
    "hash": "Reason step by step, and end with a line that holds #### and your final answer.",
    "tag": "Reason step by step, and put your final answer between <answer> and </answer>.",
    "plain": "",
}
"""What is asked of the solution."""

_SEVERAL = "If there are several answers, separate them by commas."
_PYTHON = (
    "You may run Python: write a program between <python> and </python>, and what it prints comes "
    "between <result> and </result>."
)


def problem_prompt(text: str, style: PromptStyle, *, several: bool, python: bool) -> str:
    """The problem and what is asked of its solution; `python` explains the tags of the tool."""
    asked = [ASKED[style], _SEVERAL if several and style != "plain" else ""]
    asked.append(_PYTHON if python else "")
    said = " ".join(part for part in asked if part)
    return f"{text}\n\n{said}" if said else text


def final_answer(answer: str, style: PromptStyle) -> str:
    """The last line of a solution in this style."""
    if style == "hash":
        return f"#### {answer}"
    if style == "tag":
        return f"<answer>{answer}</answer>"
    if style == "plain":
        return f"The answer is ${answer}$."
    return f"The final answer is $\\boxed{{{answer}}}$."

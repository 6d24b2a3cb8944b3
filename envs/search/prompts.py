"""How the search environments ask their question: with the tags explained, or bare."""

from __future__ import annotations

from typing import Literal, TypeAlias

PromptStyle: TypeAlias = Literal["plain", "short", "search_r1", "tree_grpo", "arpo"]

_SHORT = """\
{question}

Give the final answer in as few words as possible, with no sentence around it: a number, a name, \
or a list of these separated by commas. Write numbers in digits, without separators of thousands \
and without a unit unless the question asks for one."""

_SEARCH_R1 = """\
Find the answer to the question below. Start every turn with your reasoning, between <think> and \
</think>. Where you lack a fact, look it up: write <search> a query </search> and stop, and the \
passages found will follow between <result> and </result>. Search as many times as you need. \
Once you know the answer, give it between <answer> and </answer>, in as few words as possible, \
as in <answer> Lisbon </answer>.

Question: {question}"""

_TREE_GRPO = """\
Answer the question below in steps. Each step is one thought between <think> and </think> and then \
exactly one action, with nothing else around them. An action is either <search> a query </search>, \
after which the passages found appear between <result> and </result>, or, in the last step, \
<answer> the answer alone </answer>, as in <answer> Lisbon </answer>.

Question: {question}"""

_ARPO = """\
You solve a question with the help of a search tool. Reason between <think> and </think>. To look \
something up write <search> a query </search>; what is found comes back between <result> and \
</result>. Reason and search in turn until you are sure. Finish with \
<answer> one sentence with the final answer as \\boxed{{the answer alone}} </answer>.

Question: {question}"""

EXPLAINS_TAGS: frozenset[PromptStyle] = frozenset({"search_r1", "tree_grpo", "arpo"})
"""The styles that explain the tags of the xml format, and ask for a thought in each turn."""

_TEMPLATES: dict[PromptStyle, str] = {
    "plain": "{question}",
    "short": _SHORT,
    "search_r1": _SEARCH_R1,
    "tree_grpo": _TREE_GRPO,
    "arpo": _ARPO,
}


def question_prompt(question: str, style: PromptStyle) -> str:
    """The user message that asks `question`, some with the tags of the xml format explained.

    Wordings are ours; the contracts are Search-R1's (arXiv:2503.09516: think, search, answer),
    Tree-GRPO's (arXiv:2509.21240: one thought and one action a step) and ARPO's
    (arXiv:2507.19849: the answer boxed).
    """
    return _TEMPLATES[style].format(question=question)

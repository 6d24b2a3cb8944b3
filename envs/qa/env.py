"""A question and one answer to it, without any tool."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar, Self

from agentrl.core.env import Env, Forkable, Observation, StepInfo, StepResult, history_key
from agentrl.core.errors import EnvError, RecipeError, nearest
from agentrl.core.types import Message, Task
from agentrl.graders.short_answers import SHORT_ANSWER_SCORES, short_answer_scores

from ..search import facts
from ..search.env import questions_of
from ..search.records import Question
from .prompts import PromptStyle, gold_text, question_prompt, stated_answer

COMPONENTS = tuple(name for name in SHORT_ANSWER_SCORES if name != "cover_em")
"""What `rewards` may weigh: a list of guesses would win `cover_em`."""


class QuestionEnv(Env):
    r"""A question to answer from memory, in one action.

    Observation: the question, and where its answer is to stand (`prompt`).
    Action: free text with the answer between `<answer>` and `</answer>` (prompt "tag"), in
    `\boxed{}` ("boxed"), after "FINAL ANSWER:" ("final") or all of it ("plain"); the last one
    counts, and nothing inside `<think>` does.
    Reward: the sum over `rewards` of weight times component, each best over the accepted answers:
    `em` exact match, `f1` token F1 with HotpotQA's rule, `gaia` GAIA's own match. No answer scores
    0.0. The metrics hold all of them unweighted, `cover_em` and `answered`.
    Ends: terminated by its one action, with an answer in it or not.
    Forks: by copying.
    Data: `train` and `eval` are question files, or `hub:` names, in the layout of any of the usual
    question sets (`agentrl.envs.search.sources`). Without them it asks for single facts about
    countries and cities (GeoNames, CC BY 4.0); evaluation is about other countries than training.
    """

    forkable: ClassVar[Forkable] = "copy"

    def __init__(
        self,
        *,
        train: str = "",
        eval: str = "",
        prompt: PromptStyle = "tag",
        rewards: Mapping[str, float] | None = None,
    ) -> None:
        self.files = {"train": train, "eval": eval}
        self.prompt_style: PromptStyle = prompt
        self.rewards = {"em": 1.0} if rewards is None else dict(rewards)
        for name in self.rewards:
            if name not in COMPONENTS:
                raise RecipeError(
                    f"rewards has no component {name!r}.{nearest(name, COMPONENTS)} "
                    f"Known: {', '.join(COMPONENTS)}."
                )
        if not any(self.rewards.values()):
            raise RecipeError(f"rewards gives every component the weight 0, got {self.rewards}")
        self._task: Task | None = None

    @property
    def stop(self) -> tuple[str, ...]:
        """The closing tag, where the prompt explains it."""
        return ("</answer>",) if self.prompt_style == "tag" else ()

    def tasks(self, split: str) -> Sequence[Task]:
        """One task for each question of the split's source, or of the facts without any source.

        Raises:
            DataError: the file is missing or malformed.
            SetupError: a hub that cannot be read.
        """
        if any(self.files.values()):
            questions = questions_of(self.files.get(split, ""), split)
        else:
            questions = _single_facts(split)
        return [
            Task(one.id, {"question": one.text, "answers": list(one.answers)}) for one in questions
        ]

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The first accepted answer."""
        return gold_text(task.data["answers"][0], self.prompt_style) if turn == 0 else None

    def answer_of(self, action: str) -> str | None:
        """The answer where the prompt asks for it."""
        return stated_answer(action, self.prompt_style)

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Ask the question."""
        prompt = question_prompt(task.data["question"], self.prompt_style)
        self._task = task
        return (Message.of("user", prompt),)

    async def step(self, action: str) -> StepResult:
        """Grade the answer."""
        task, self._task = self._task, None
        if task is None:
            raise EnvError(f"{type(self).__name__}.step was called before reset or after the end")
        answer = self.answer_of(action)
        values = short_answer_scores(answer, task.data["answers"])
        rewards = {name: weight * values[name] for name, weight in self.rewards.items() if weight}
        info = StepInfo(
            rewards=rewards,
            state_key=history_key(task.id, action),
            metrics={**values, "answered": float(answer is not None)},
        )
        return StepResult((), math.fsum(rewards.values()), True, False, info)

    async def fork(self) -> Self:
        """A copy of this env at this turn."""
        return copy.copy(self)


@cache
def _single_facts(split: str) -> Sequence[Question]:
    if split not in ("train", "eval"):
        return ()
    found = facts.questions("train" if split == "train" else "eval")
    # Nobody knows the rounded population or latitude of a small town.
    numbers = ("city-population/", "city-latitude/")
    return tuple(
        Question(*one) for one in found if one.hops == 1 and not one.id.startswith(numbers)
    )

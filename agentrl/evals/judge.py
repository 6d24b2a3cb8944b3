"""A model as judge of stored answers: any OpenAI-compatible chat server, asked once per answer.

Used by `agentrl rescore`. A judge is another fallible model: what it says stands beside the
scores of the graders, never in their place, with its name and the hash of its prompt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

from pydantic import Field

from agentrl.core.errors import EngineError
from agentrl.core.settings import Settings
from agentrl.engine.chat_messages import words_of
from agentrl.engine.http import SHOWN, ModelServer, RefusedError
from agentrl.engine.settings import ChatSettings
from agentrl.evals.judge_prompt import (
    PromptName,
    Submission,
    judge_prompt,
    last_message,
    prompt_hash,
    read_reply,
)
from agentrl.evals.samples import Key, Sample
from agentrl.graders.verdicts import Grade
from agentrl.tools.disk_cache import DiskCache

Ask: TypeAlias = Callable[[str], Awaitable[str]]
"""The judge as a function: a prompt -> its whole reply. Raises `EngineError` if it has none."""

SCORE: Final = "judge"
"""The score of a judged sample: 1.0 for a correct answer, else 0.0."""
ATTEMPTED: Final = "judge_attempted"
"""1.0 where the judged answer was an attempt: correct or incorrect."""
IF_ATTEMPTED: Final = "judge_if_attempted"
"""As `SCORE`, of attempted samples only: its mean is SimpleQA's "correct given attempted"."""
JUDGE_SCORES: Final = (SCORE, ATTEMPTED, IF_ATTEMPTED)

_FAILURES_IN_A_ROW = 8
_NEVER_BETTER = frozenset({401, 402, 403, 404})
_CHARACTERS_PER_TOKEN = 3


class JudgeSettings(Settings):
    """Who judges, and how it is asked.

    `server.model` is the judge, by the server's name for it. `prompt`: `answer` compares the final
    answer with the accepted ones; `simpleqa` has a third grade for what was not attempted;
    `response` is shown the whole last message and finds the final answer itself, as for a policy
    that keeps to no format (Humanity's Last Exam). With `cache`, a folder, no judge is asked twice
    about the same question, references and text under the same prompt.
    """

    server: ChatSettings
    prompt: PromptName = "answer"
    temperature: float = Field(default=0.0, ge=0.0)
    max_tokens: int = Field(default=2048, ge=16)
    cache: str = ""

    @property
    def name(self) -> str:
        """Judge, prompt and the prompt's hash, for whoever reads the scores."""
        model = self.server.model or "the server's model"
        return f"{model}, prompt {self.prompt} ({prompt_hash(self.prompt)})"


class Verdict(NamedTuple):
    """What a judge said. `grade` is None where nothing can be concluded: `told` says why.

    Else `told` is its reply, or that it was not asked, since there was no answer.
    """

    grade: Grade | None
    told: str

    @property
    def scores(self) -> dict[str, float]:
        """Those of `JUDGE_SCORES` that there are; none where it is not graded."""
        if self.grade is None:
            return {}
        if self.grade == "not_attempted":
            return {SCORE: 0.0, ATTEMPTED: 0.0}
        correct = float(self.grade == "correct")
        return {SCORE: correct, ATTEMPTED: 1.0, IF_ATTEMPTED: correct}


class Judge:
    """Asks for verdicts; an async context manager. `ask` takes the server's place (tests)."""

    def __init__(self, settings: JudgeSettings, *, ask: Ask | None = None) -> None:
        self.settings = settings
        self._server = ModelServer(settings.server)
        self._ask = ask or self._post
        self._cache = DiskCache(Path(settings.cache)) if settings.cache else None
        self._verdicts: dict[str, asyncio.Task[Verdict]] = {}
        self._failed = 0

    async def __aenter__(self) -> Self:
        await self._server.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.close()

    async def verdict(self, submission: Submission) -> Verdict:
        """What the judge says; a text that is empty is not attempted, without asking.

        A judge that does not answer, or not with a grade, leaves the text ungraded. The same
        submission has one verdict, however often and at the same time it is handed in.

        Raises:
            EngineError: the server refuses this judge, or failed many times in a row.
        """
        if not submission.text.strip():
            return Verdict("not_attempted", "not asked: there is no answer")
        key = self._key(submission)
        if key not in self._verdicts:
            self._verdicts[key] = asyncio.create_task(self._verdict(key, submission))
        return await self._verdicts[key]

    async def _verdict(self, key: str, submission: Submission) -> Verdict:
        known = None if self._cache is None else self._cache.get(key)
        if known is not None:
            return self._read(known.decode())
        try:
            reply = await self._ask(judge_prompt(self.settings.prompt, submission))
        except EngineError as error:
            self._failed += 1
            hopeless = isinstance(error, RefusedError) and error.status in _NEVER_BETTER
            if hopeless or self._failed >= _FAILURES_IN_A_ROW:
                raise
            return Verdict(None, f"the judge did not answer: {error}")
        self._failed = 0
        found = self._read(reply)
        # What could not be read is asked again another time.
        if self._cache is not None and found.grade is not None:
            self._cache.put(key, reply.encode("utf-8", "replace"))
        return found

    def _read(self, reply: str) -> Verdict:
        reading = read_reply(self.settings.prompt, reply)
        if reading.grade is None:
            return Verdict(None, f"the judge's reply was not understood: {reading.fault}")
        return Verdict(reading.grade, reply)

    def _key(self, submission: Submission) -> str:
        """All that a reply depends on."""
        settings, server = self.settings, self.settings.server
        how = [server.model, server.extra, server.omit, settings.temperature, settings.max_tokens]
        return json.dumps([*how, prompt_hash(settings.prompt), *submission], sort_keys=True)

    async def _post(self, prompt: str) -> str:
        settings, server = self.settings, self.settings.server
        body: dict[str, Any] = {
            "model": server.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": settings.temperature,
            server.max_tokens_field: settings.max_tokens,
        }
        for name in server.omit:
            body.pop(name, None)
        tokens = len(prompt) // _CHARACTERS_PER_TOKEN + settings.max_tokens
        reply = await self._server.post("/chat/completions", body | server.extra, tokens=tokens)
        return _content(reply)


async def judge_samples(
    samples: Iterable[Sample], judge: Judge, submitted: Callable[[Sample], Submission]
) -> AsyncIterator[tuple[Key, Verdict]]:
    """The verdict on each of `samples` that was not lost, in their order.

    `submitted` says what is judged (see `submission_of`). All are handed to the judge at once,
    whose server settings say how many of them it is asked at a time.

    Raises:
        EngineError: as `Judge.verdict`.
    """
    played = [sample for sample in samples if not sample.failure]
    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(judge.verdict(submitted(one))) for one in played]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    for sample, task in zip(played, asked, strict=True):
        yield sample.key, task.result()


def submission_of(
    sample: Sample, data: Mapping[str, Any], references: tuple[str, ...], prompt: PromptName
) -> Submission:
    """What of `sample` a judge sees; `data` are its task's, `references` its right answers.

    The question is the task's own where it has one, or else all that the policy was shown at first.
    """
    question = next((data[key] for key in ("question", "text", "problem") if key in data), None)
    asked = question if isinstance(question, str) else sample.prompt
    if prompt == "response":
        return Submission(asked, references, last_message([one.action for one in sample.texts]))
    return Submission(asked, references, sample.answer or "")


def judged(sample: Sample, verdict: Verdict, *, decides: bool = True) -> Sample:
    """`sample` with the judge's scores beside its own; they say when it was solved if it `decides`.

    One that could not be graded is marked so, and is then in no estimate: it is not wrong.
    """
    if verdict.grade is None:
        return replace(sample, failure="ungraded", error=verdict.told, scores={}, solved_turn=None)
    kept = {name: value for name, value in sample.scores.items() if name not in JUDGE_SCORES}
    new = replace(sample, scores={**kept, **verdict.scores})
    if not decides:
        return new
    # The last answer is what was judged.
    return replace(new, solved_turn=sample.turns - 1 if verdict.grade == "correct" else None)


def _content(reply: Mapping[str, Any]) -> str:
    """The text of a chat completion that came to its end."""
    try:
        choice = reply["choices"][0]
        content, reason = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise EngineError(f"a judge's reply needs a message: {str(reply)[:SHOWN]}") from error
    if reason in ("length", "max_tokens"):
        raise EngineError("the judge's reply was cut off by max_tokens")
    return words_of(content, choice)[0]

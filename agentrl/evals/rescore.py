"""Scores stored trajectories again, without the policy: by replay, by a grader, or by a judge."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from agentrl.core.env import Env, Observation, StepResult
from agentrl.core.errors import DataError, RecipeError, nearest
from agentrl.core.registry import make_env
from agentrl.core.types import StopReason, Task, Text, TrajectoryTree
from agentrl.evals.folder import EvalFolder, write_whole
from agentrl.evals.judge import JUDGE_SCORES, SCORE, Judge, JudgeSettings, submission_of
from agentrl.evals.judge_prompt import Submission
from agentrl.evals.judging import FILE, Judging
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.planning import laid_over
from agentrl.evals.progress import Display
from agentrl.evals.record import scored, solved_turn
from agentrl.evals.results import Results
from agentrl.evals.run import conclude
from agentrl.evals.samples import FailureKind, Sample, SampleLog, final_samples
from agentrl.evals.tasks import Loaded, load_suite
from agentrl.graders.gaia import gaia_match
from agentrl.graders.math import Outcome, grade_answer
from agentrl.graders.qa import cover_match, exact_match, token_f1
from agentrl.rollout.deadline import OverdueError, within
from agentrl.rollout.seeds import derive
from agentrl.rollout.settings import LimitsSettings

Grader: TypeAlias = Callable[[str, Sequence[str]], float]
"""(answer, reference answers) -> score in [0, 1]."""


class _UngradedError(Exception):
    """A grader failed, which says nothing about the answer."""


def _math(answer: str, references: Sequence[str]) -> float:
    grades = [grade_answer(answer, one) for one in references]
    if any(grade.correct for grade in grades):
        return 1.0
    for grade in grades:
        if grade.outcome is Outcome.UNGRADED:
            raise _UngradedError(f"ungraded: {grade.reason}, for the answer {answer!r:.200}")
    return 0.0


GRADERS: Final[Mapping[str, Grader]] = {
    "cover_match": cover_match,
    "exact_match": exact_match,
    "gaia_match": gaia_match,
    "math": _math,
    "token_f1": token_f1,
}
"""Graders of a stored answer, by name; the score that they give has that name."""

_TURNS_LOOKED_AT = 64
_REFERENCES = ("answers", "golden_answers", "answer", "result")
"""Keys of a task's data under which its right answers stand, the first that is there."""


class Rescored(NamedTuple):
    """What became of it: the results, and how many samples' score changed, or was lost."""

    results: Results
    changed: int
    lost: int


class DivergedError(Exception):
    """A replay was shown something else than the policy had been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescoring:
    """How to score again.

    `settings` (`key=value`) are changed settings of the environment, under which the stored
    actions are replayed; so they are where none of the others is given. `grader` names one of
    `GRADERS`, for the stored answers; `judge` is a model that says whether they are right. `score`
    is the component that counts from now on.
    """

    settings: Sequence[str] = ()
    grader: str = ""
    judge: JudgeSettings | None = None
    score: str = ""

    @property
    def replays(self) -> bool:
        """True where the environments are played again."""
        return bool(self.settings) or not (self.grader or self.judge or self.score)

    @property
    def gives(self) -> tuple[str, ...]:
        """The scores that it adds, the first of which counts."""
        judged = JUDGE_SCORES if self.judge else ()
        return (*judged, self.grader) if self.grader else judged

    def __str__(self) -> str:
        """For the results."""
        parts = []
        if self.replays:
            given = f" with {' '.join(self.settings)}" if self.settings else ""
            parts.append(f"replayed through the environment{given}")
        if self.grader:
            parts.append(f"answers graded by {self.grader}")
        if self.judge:
            parts.append(f"judged by {self.judge.name}")
        if self.score:
            parts.append(f"score {self.score}")
        return ", ".join(parts)

    def planned(self, suite: PlannedSuite) -> PlannedSuite:
        """`suite` as it is scored now. Raises RecipeError on a setting that cannot be."""
        # An environment that is played again gives its own scores only.
        gone = {*GRADERS, *JUDGE_SCORES} if self.replays else set()
        own = [one for one in (suite.score, *suite.also) if one not in gone]
        named = dict.fromkeys((*own[:1], *self.gives, *own[1:]))
        counts = self.score or next(iter(self.gives), own[0])
        also = tuple(one for one in named if one != counts)
        changed = suite.model_copy(update={"score": counts, "also": also})
        return laid_over(changed, [f"args.{one}" for one in self.settings])


def rescore(source: Path, out: Path, how: Rescoring, *, display: Display | None = None) -> Rescored:
    """Score the samples of the evaluation in `source` again, into the new folder `out`.

    Nothing in `source` changes. A replay steps a fresh environment through the stored actions with
    the sample's seed and compares what it shows with what the policy was shown: one that differs,
    or that goes on after the last stored action, says nothing about the policy, and its sample is
    marked as a failure. A sample that was lost stays lost. Exact for environments that are a
    function of task, seed and actions. A judge's verdicts are written to `verdicts.jsonl`.

    Raises:
        DataError: `source` holds no evaluation, `out` holds something, or a task is gone.
        RecipeError: no grader of that name, or a setting that the environment does not have.
        EngineError: the judge refuses, or is down.
    """
    if how.grader and how.grader not in GRADERS:
        raise RecipeError(
            f"no grader is named {how.grader!r}.{nearest(how.grader, GRADERS)} "
            f"Known: {', '.join(GRADERS)}."
        )
    before = EvalFolder(source).read_plan()
    plan = before.model_copy(update={"suites": tuple(map(how.planned, before.suites))})
    for suite in plan.suites:
        make_env(suite.env, **suite.args)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} holds something already; choose another --out")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    display = display or Display()
    try:
        work = _rescore(EvalFolder(source), EvalFolder(unfinished), plan, how, display)
        found = asyncio.run(work)
        if out.exists():
            out.rmdir()  # an empty folder that was made for the results
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    display.line(f"results are in {out / 'results.json'}")
    return found


async def _rescore(
    source: EvalFolder, target: EvalFolder, plan: EvalPlan, how: Rescoring, display: Display
) -> Rescored:
    changed = lost = 0
    scores = {one.tag: one.score for one in source.read_plan().suites}
    async with AsyncExitStack() as stack:
        stack.enter_context(target.writing())
        write_whole(target.plan, plan.model_dump_json(indent=1) + "\n")
        log = SampleLog(target.samples)
        stack.callback(log.close)
        suites: dict[str, Loaded] = {}
        for one in plan.suites:
            suites[one.tag] = await load_suite(one)
            stack.push_async_callback(suites[one.tag].env.close)
        judging = None
        if how.judge is not None:
            judge = await stack.enter_async_context(Judge(how.judge))
            judging = Judging(judge, decides=how.score in ("", SCORE))
        with display.phase(f"scoring {source.path} again"):
            async for old, new in _scored_again(source, plan, how, suites, judging):
                log.append(new)
                if new.failure and not old.failure:
                    lost += 1
                elif not new.failure:
                    then = old.scores.get(scores[old.key.suite])
                    now = new.scores.get(_suite_of(plan, old).score)
                    changed += then != now
        log.close()
        if judging is not None:
            judging.write(target.path / FILE)
        if source.sittings.exists():
            write_whole(target.sittings, source.sittings.read_text())
        if source.images.is_dir():
            shutil.copytree(source.images, target.images)
        counts = {tag: len(one.tasks) for tag, one in suites.items()}
        results = conclude(target, plan, counts, rescored=f"{how}; samples of {source.path}")
    display.results(results)
    if lost:
        display.line(
            f"{lost} samples could not be scored again: their replay diverged or failed, or the "
            "grader or judge gave no grade. They are counted as lost; their `error` says why"
        )
    for line in judging.lines() if judging is not None else ():
        display.line(line)
    display.line(f"{changed} samples have another score")
    return Rescored(results, changed, lost)


def _suite_of(plan: EvalPlan, sample: Sample) -> PlannedSuite:
    return next(one for one in plan.suites if one.tag == sample.key.suite)


async def _scored_again(
    source: EvalFolder,
    plan: EvalPlan,
    how: Rescoring,
    suites: Mapping[str, Loaded],
    judging: Judging | None,
) -> AsyncIterator[tuple[Sample, Sample]]:
    """Each stored sample with its new version, a portion of them at once."""
    tasks = {tag: {task.id: task for task in suite.tasks} for tag, suite in suites.items()}
    waiting: list[Sample] = []
    known = (one for one in final_samples(source.samples) if one.key.suite in suites)

    async def portion() -> list[tuple[Sample, Sample]]:
        async def one(old: Sample) -> tuple[Sample, Sample]:
            task = tasks[old.key.suite].get(old.key.task_id)
            if task is None:
                raise DataError(
                    f"task {old.key.task_id!r} of {old.key.suite} is not there any more: the rows "
                    "are others than those that were played"
                )
            suite = suites[old.key.suite]
            return old, await score_again(old, task, suite, how, plan.rollout.limits)

        pairs = list(await asyncio.gather(*map(one, waiting)))
        return pairs if judging is None else await judging.over(pairs, submitted)

    def submitted(sample: Sample) -> Submission:
        tag = sample.key.suite
        task = tasks[tag][sample.key.task_id]
        references = references_of(task, suites[tag].env)
        assert judging is not None
        return submission_of(sample, task.data, references, judging.judge.settings.prompt)

    for sample in known:
        waiting.append(sample)
        if len(waiting) == plan.rollout.concurrency:
            for pair in await portion():
                yield pair
            waiting.clear()
    for pair in await portion():
        yield pair


async def score_again(
    old: Sample, task: Task, suite: Loaded, how: Rescoring, limits: LimitsSettings
) -> Sample:
    """`old` under `how`; one that was lost stays as it is."""
    if old.failure:
        return old
    new = old
    if how.replays:
        new = await _replayed_or_lost(old, task, suite.suite, limits)
    elif how.score and how.score not in (*old.scores, *how.gives):
        raise RecipeError(
            f"sample {old.key} has no score {how.score!r}; it has {', '.join(old.scores)}"
        )
    if how.grader and not new.failure:
        new = _graded(new, task, suite.env, how.grader)
    elif how.score and not new.failure:
        new = replace(new, solved_turn=solved_turn(new.tree.turns, how.score))
    return new


async def _replayed_or_lost(
    old: Sample, task: Task, suite: PlannedSuite, limits: LimitsSettings
) -> Sample:
    failure: FailureKind = "environment"
    try:
        async with AsyncExitStack() as stack:
            env = make_env(suite.env, **suite.args)
            stack.push_async_callback(env.close)
            return await _replayed(old, task, suite, env, limits)
    except DivergedError as error:
        said = f"replay diverged: {error}"
    except OverdueError:
        said = "replay failed: the environment hung past its deadline"
    except Exception as error:  # the boundary: an environment may raise anything
        failure = "ungraded" if str(error).startswith("ungraded:") else "environment"
        said = f"replay failed: {type(error).__name__}: {error}"
    return replace(old, failure=failure, error=said, scores={}, solved_turn=None)


async def _replayed(
    old: Sample, task: Task, suite: PlannedSuite, env: Env, limits: LimitsSettings
) -> Sample:
    seed = derive(old.tree.seed, "env")
    observation = await within(env.reset(task, seed=seed), limits.reset_seconds)
    _compare(observation, old.prompt, "the prompt")
    tree = TrajectoryTree(
        old.key.task_id, old.tree.prompt_ids, group_id=old.tree.group_id, seed=old.tree.seed
    )
    tree.failures = list(old.tree.failures)
    node, reason = -1, old.stop_reason
    for number, (turn, text) in enumerate(zip(old.tree.turns, old.texts, strict=True)):
        result = await within(env.step(text.action), limits.tool_seconds)
        node = tree.add(node, replace(turn, **_of(result)))
        ended = result.terminated or result.truncated
        if not ended and number + 1 < len(old.texts):
            _compare(result.observation, text.observation, f"the observation of turn {number}")
        elif ended:
            terminated = StopReason.TERMINATED
            reason = terminated if result.terminated else StopReason.TRUNCATED_TURNS
            break
        elif old.stop_reason is StopReason.TERMINATED:
            raise DivergedError("the episode goes on after the last stored action")
    if node >= 0:
        tree.end(node, reason)
    turns = tree.turns
    return replace(
        old,
        scores=scored(turns, suite),
        stop_reason=reason,
        answers=tuple(env.answer_of(text.action) for text in old.texts[: len(turns)]),
        solved_turn=solved_turn(turns, suite.score),
        turns=len(turns),
        tool_calls=sum(len(turn.tool_calls) for turn in turns),
        malformed_calls=sum(turn.malformed_calls for turn in turns),
        texts=old.texts[: len(turns)],
        tree=tree,
    )


def _of(result: StepResult) -> dict[str, Any]:
    """What of a turn the environment decides."""
    return {
        "reward": float(result.reward),
        "rewards": dict(result.info.rewards),
        "metrics": dict(result.info.metrics),
        "tool_calls": result.info.tool_calls,
        "malformed_calls": result.info.malformed_calls,
    }


def _compare(observation: Observation, stored: str, what: str) -> None:
    """Each text of `observation` must stand in what the policy read, in order.

    Around them stands what a chat template adds, which also trims their ends.
    """
    at = 0
    for message in observation:
        for part in message.parts:
            text = part.text.strip() if isinstance(part, Text) else ""
            found = stored.find(text, at)
            if found < 0:
                raise DivergedError(f"{what} was {stored!r:.200}, and is {text!r:.200} now")
            at = found + len(text)


def _graded(sample: Sample, task: Task, env: Env, grader: str) -> Sample:
    references = references_of(task, env)
    grade = GRADERS[grader]
    try:
        values = [0.0 if one is None else grade(one, references) for one in sample.answers]
    except _UngradedError as error:
        return replace(sample, failure="ungraded", error=str(error), scores={}, solved_turn=None)
    last = next(
        (v for v, one in zip(values[::-1], sample.answers[::-1], strict=True) if one is not None),
        0.0,
    )
    solved = next((turn for turn, value in enumerate(values) if value >= 1.0), None)
    return replace(sample, scores={**sample.scores, grader: last}, solved_turn=solved)


def references_of(task: Task, env: Env) -> tuple[str, ...]:
    """The right answers of `task`: those in its data, or else the answer of its gold action.

    Raises:
        DataError: it has neither.
    """
    for key in _REFERENCES:
        value = task.data.get(key)
        if isinstance(value, str):
            return (value,)
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
            return tuple(value)
    for turn in range(_TURNS_LOOKED_AT):
        gold = env.gold_action(task, turn)
        answer = None if gold is None else env.answer_of(gold)
        if answer is not None:
            return (answer,)
    raise DataError(
        f"task {task.id!r} names no right answer to grade against: its data has none of "
        f"{', '.join(_REFERENCES)}, and no gold action of it gives one"
    )

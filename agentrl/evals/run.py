"""An evaluation from its plan to its results: written down first, resumed, never played twice."""

from __future__ import annotations

import asyncio
import gc
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from agentrl.core.errors import DataError, EngineError, EnvError, nearest
from agentrl.core.types import StopReason, Task
from agentrl.evals.folder import EvalFolder, write_whole
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.planning import require_same, rollout_of
from agentrl.evals.play import Patience, play_missing
from agentrl.evals.progress import Display, Tally
from agentrl.evals.provenance import Sittings, provenance
from agentrl.evals.results import Results
from agentrl.evals.samples import Key, Sample, SampleLog, final_samples, last_lines, read_samples
from agentrl.evals.scores import summarise
from agentrl.evals.suites import SUITES
from agentrl.evals.tasks import Loaded, load_suite
from agentrl.recipe.schema import EnvSettings, PolicySettings, Recipe
from agentrl.rollout.host import renderer_for
from agentrl.rollout.render import Rendering
from agentrl.samplers.chain import ChainSampler
from agentrl.workers.runtime import open_fleet

_LEAST_PATIENCE = 16


def evaluate(
    plan: EvalPlan,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    display: Display | None = None,
) -> Results:
    """Play what `plan` says, into the folder `out`, and return what it amounts to.

    With `resume` a folder that holds this evaluation is gone on with: what is missing and what was
    lost to infrastructure is played, nothing else. `command` is written into the provenance.

    Raises:
        DataError: `out` holds an evaluation already (without `resume`), or another one; a suite
            without tasks, with two of one id, or whose score no sample has.
        SetupError: another process is writing in `out`.
        EngineError, EnvError: so many samples in a row were lost that something must be down, or
            none could be played; what finished is kept.
        KeyboardInterrupt: stopped by the user; what finished is kept.
    """
    return asyncio.run(_evaluate(plan, EvalFolder(out), resume, command, display or Display()))


def conclude(
    folder: EvalFolder,
    plan: EvalPlan,
    tasks: Mapping[str, int],
    *,
    rescored: str = "",
    whole: bool = False,
) -> Results:
    """Make the results of `folder` from its samples, and write them.

    `tasks` is how many tasks each suite has, by tag. With `whole` everything was played.

    Raises:
        DataError: with `whole`, a suite of which no sample has the score that counts.
    """
    sittings = Sittings(folder.sittings, samples=folder.samples)
    named: dict[str, set[str]] = {one.tag: set() for one in plan.suites}
    samples = read_samples(folder.samples) if folder.samples.exists() else iter(())
    results = summarise(
        plan,
        _noting(samples, named),
        provenance(sittings.found, rescored=rescored),
        titles={one.tag: one.title for one in SUITES.values()},
        tasks=tasks,
    )
    if whole:
        _require_scores(plan, named, folder)
    write_whole(folder.results, results.model_dump_json(indent=1) + "\n")
    return results


def _noting(samples: Iterable[Sample], named: Mapping[str, set[str]]) -> Iterator[Sample]:
    """`samples`; the names of what their environments measured go into `named`, by suite.

    Only of episodes that came to their end: one that a limit ended need not have been graded.
    """
    for sample in samples:
        found = named.get(sample.key.suite, set())
        for turn in sample.tree.turns:
            if sample.stop_reason is StopReason.TERMINATED:
                found.update(turn.rewards, turn.metrics)
        yield sample


def _require_scores(plan: EvalPlan, named: Mapping[str, set[str]], folder: EvalFolder) -> None:
    """Refuse a score that no sample has: absent is not 0."""
    for suite in plan.suites:
        known = sorted(named[suite.tag])
        if known and suite.score not in (*known, "reward"):
            raise DataError(
                f"{suite.tag}: no sample has the score {suite.score!r}."
                f"{nearest(suite.score, known)} Known: {', '.join(known)}, reward. `agentrl "
                f"rescore {folder.path} score=NAME` counts another one of what was played"
            )


async def _evaluate(
    plan: EvalPlan, folder: EvalFolder, resume: bool, command: str, display: Display
) -> Results:
    _require_place(plan, folder, resume)
    async with AsyncExitStack() as stack:
        suites = []
        for one in plan.suites:
            with display.phase(f"reading the tasks of {one.tag}"):
                suites.append(await load_suite(one))
            stack.push_async_callback(suites[-1].env.close)
        stack.enter_context(folder.writing())
        _require_place(plan, folder, resume)  # another process may have been quicker
        write_whole(folder.plan, plan.model_dump_json(indent=1) + "\n")
        await _play(plan, folder, suites, command, display)
        results = conclude(folder, plan, _counts(suites), whole=True)
    display.results(results)
    _require_some(results, folder)
    display.line(f"results are in {folder.results}")
    return results


def _counts(suites: Sequence[Loaded]) -> dict[str, int]:
    return {one.suite.tag: len(one.tasks) for one in suites}


def _require_place(plan: EvalPlan, folder: EvalFolder, resume: bool) -> None:
    if resume and folder.plan.exists():
        require_same(folder.read_plan(), plan, folder.path)
    elif folder.plan.exists() or folder.samples.exists():
        hint = "add --resume to go on with it, or " if folder.plan.exists() else ""
        raise DataError(f"{folder.path} holds an evaluation already; {hint}choose another --out")


def _require_some(results: Results, folder: EvalFolder) -> None:
    scored = sum(one.scored for one in results.suites)
    lost = sum(sum(one.failures.values()) for one in results.suites)
    if scored or not lost:
        return
    first = next(one.error for one in final_samples(folder.samples) if one.failure)
    server = any(one.failures.get("policy_server") for one in results.suites)
    kind = EngineError if server else EnvError
    raise kind(f"none of {lost} samples could be scored; one of them: {first}{_way_on(folder)}")


def _way_on(folder: EvalFolder) -> str:
    where = shlex.quote(str(folder.path))
    return f"\nwhat finished is kept; go on with `agentrl eval --resume --out {where}`"


async def _play(
    plan: EvalPlan, folder: EvalFolder, suites: Sequence[Loaded], command: str, display: Display
) -> None:
    finished = {key for key, place in last_lines(folder.samples).items() if not place.failure}
    missing = [[one for one in suite.planned() if one[0] not in finished] for suite in suites]
    if not any(missing):
        display.line(f"everything is played already in {folder.path}")
        return
    reader = renderer_for(plan.model, plan.engine, images=folder.images)
    sittings = Sittings(folder.sittings, samples=folder.samples)
    log = SampleLog(folder.samples)
    sittings.begin(command)
    try:
        for suite, left in zip(suites, missing, strict=True):
            if left:
                await _play_suite(plan, folder, suite, left, reader, log, display)
    except asyncio.CancelledError:
        log.close()
        conclude(folder, plan, _counts(suites))
        display.line(f"stopped{_way_on(folder)}")
        raise
    except (EngineError, EnvError) as error:
        log.close()
        conclude(folder, plan, _counts(suites))
        raise type(error)(f"{error}{_way_on(folder)}") from error
    finally:
        log.close()
        sittings.end()


async def _play_suite(
    plan: EvalPlan,
    folder: EvalFolder,
    suite: Loaded,
    missing: Sequence[tuple[Key, Task]],
    reader: Rendering,
    log: SampleLog,
    display: Display,
) -> None:
    planned = suite.suite
    total = len(suite.tasks) * planned.samples
    tally = Tally(planned.score)
    rollout = plan.rollout
    at_once = min(rollout.workers * (rollout.concurrency + 1), len(missing))

    def done(sample: Sample) -> None:
        log.append(sample)
        bar.add(sample)

    async with AsyncExitStack() as stack:
        with display.phase(f"starting the policy for {planned.tag}"):
            asked = recipe_of(plan, planned)
            opened = open_fleet(asked, model=plan.model, images=folder.images.absolute())
            fleet = await stack.enter_async_context(opened)
        left = "" if len(missing) == total else f"; {total - len(missing)} are there already"
        display.line(
            f"{planned.tag}: {len(suite.tasks)} tasks x {planned.samples} by {plan.policy}{left}"
        )
        bar = stack.enter_context(
            display.bar(planned.tag, tally, done=total - len(missing), total=total)
        )
        stack.enter_context(_loaded_is_left_alone())
        await play_missing(
            fleet,
            suite,
            missing,
            seed=plan.seed,
            reader=reader,
            at_once=at_once,
            patience=Patience(max(_LEAST_PATIENCE, at_once)),
            done=done,
        )


@contextmanager
def _loaded_is_left_alone() -> Iterator[None]:
    """What is loaded by now is not looked at by the garbage collector over and over.

    With the libraries of a model in the process that took a third of the time of quick samples.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def recipe_of(plan: EvalPlan, suite: PlannedSuite) -> Recipe:
    """`suite` of `plan` in the words in which workers are asked to play."""
    return Recipe(
        name="evaluation",
        seed=plan.seed,
        runtime=plan.runtime,
        cluster=plan.cluster,
        env=EnvSettings(id=suite.env, args=suite.args),
        policy=PolicySettings(model=plan.model),
        engine=plan.engine,
        sampler=ChainSampler(trajectories=1),
        rollout=rollout_of(plan, suite),
    )

"""Made-up samples, plans and folders of evaluations, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from agentrl.core.types import StopReason, TrajectoryTree
from agentrl.engine.settings import ScriptedSettings
from agentrl.evals.plan import EvalPlan, PlannedSuite, Price
from agentrl.evals.results import Provenance
from agentrl.evals.samples import FailureKind, Key, Sample, SampleLog, TurnText

PROVENANCE = Provenance(agentrl="0", python="3", platform="test")


def planned(name: str = "toy", **changed: object) -> PlannedSuite:
    """A suite that is decided by `correct`."""
    return PlannedSuite(name=name, version=1, env="toy", score="correct", **changed)  # type: ignore


def plan_of(*suites: PlannedSuite, price: Price | None = None, policy: str = "p") -> EvalPlan:
    """A plan to play `suites`."""
    engine = ScriptedSettings(script="oracle")
    return EvalPlan(policy=policy, engine=engine, suites=suites, price=price)


def sample_of(
    task: str,
    number: int = 0,
    *,
    correct: float = 1.0,
    suite: str = "toy@1",
    failure: FailureKind = "",
    answers: Sequence[str | None] = (),
    actions: Sequence[str] = (),
    solved_turn: int | None = None,
    scores: dict[str, float] | None = None,
    turns: int | None = None,
    generated_tokens: int = 10,
    prompt_tokens: int = 100,
    tool_calls: int = 1,
) -> Sample:
    """One sample; `answers` are those of its turns, `actions` what was said around them."""
    said = actions or [f"I say {answer}" for answer in answers]
    return Sample(
        key=Key(suite, task, number),
        seed=0,
        scores={} if failure else {"correct": correct, "reward": correct, **(scores or {})},
        stop_reason=StopReason.ENV_ERROR if failure else StopReason.TERMINATED,
        failure=failure,
        error="gone" if failure else "",
        answers=tuple(answers),
        solved_turn=solved_turn,
        turns=len(said) or 1 if turns is None else turns,
        tool_calls=tool_calls,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        generate_seconds=0.5,
        texts=tuple(TurnText(action, "") for action in said),
        tree=TrajectoryTree(task, [1]),
    )


def write_evaluation(folder: Path, plan: EvalPlan, samples: Iterable[Sample]) -> Path:
    """The folder of an evaluation, as far as a comparison reads it."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.model_dump_json())
    log = SampleLog(folder / "samples.jsonl")
    for sample in samples:
        log.append(sample)
    log.close()
    return folder

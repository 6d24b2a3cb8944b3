"""The results file: what was measured, how sure it is, what was lost, and what produced it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.evals.plan import EvalPlan

FORMAT: Final = "agentrl.results/1"


class Estimate(Settings):
    """A value with its standard error, clustered by task, and a 95 % interval.

    `tasks` is the number of tasks behind it; `method` names the interval (wilson, cluster_wilson,
    cluster_t, none; docs/statistics.md says when which). NaN is written as null.
    """

    value: float | None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    tasks: int
    method: str


class Amount(Settings):
    """A quantity per scored sample: mean, median and 95th percentile; null without any.

    `total` is what was spent in all: on samples that failed and on those played again, too.
    """

    total: float
    mean: float | None
    median: float | None
    p95: float | None


class SuiteResult(Settings):
    """One suite's part.

    `estimates` has a key for each number, the deciding score's first: `correct`, `em`, `avg@16`,
    `pass@4`, `pass^4`, `majority@16`, `solved_by_turn@2`, `succ@2`, `unique_answer_ratio`, ...
    `failures` counts samples by kind of failure, which are in no estimate;
    `if_failures_were_wrong` is the score with each of them counted as 0. `unplanned` is 0 unless
    the log holds samples beyond the plan's number, which count in nothing.
    """

    suite: str
    title: str = ""
    score: str
    tasks: int
    samples_per_task: int
    planned: int
    scored: int
    missing: int
    failures: dict[str, int] = Field(default_factory=dict)
    if_failures_were_wrong: float | None = None
    unplanned: int = 0
    stop_reasons: dict[str, int] = Field(default_factory=dict)
    estimates: dict[str, Estimate] = Field(default_factory=dict)
    amounts: dict[str, Amount] = Field(default_factory=dict)
    cost: float | None = None


class Provenance(Settings):
    """What produced the results: versions, machine, command and times (UTC, ISO 8601).

    `rescored` is empty, or says what scored the stored samples again, and of which evaluation.
    """

    agentrl: str
    commit: str = ""
    python: str
    platform: str
    packages: dict[str, str] = Field(default_factory=dict)
    command: str = ""
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    sittings: int = 1
    rescored: str = ""


class Results(Settings):
    """`results.json`, whole: format, plan, suites and provenance."""

    format: Literal["agentrl.results/1"] = FORMAT
    plan: EvalPlan
    suites: tuple[SuiteResult, ...]
    provenance: Provenance

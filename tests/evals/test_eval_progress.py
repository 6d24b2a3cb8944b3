"""What is seen of an evaluation while it runs and at its end."""

from io import StringIO

from eval_fakes import plan
from rich.console import Console

from agentrl.evals import progress
from agentrl.evals.progress import Display, Tally, shown
from agentrl.evals.provenance import provenance
from agentrl.evals.record import lost_sample
from agentrl.evals.results import Amount, Estimate, Results, SuiteResult
from agentrl.evals.samples import Key


def finished(task: str, score: float | None):
    sample = lost_sample(Key("quiz@1", task, 0), seed=0, failure="", error="")
    if score is None:
        return lost_sample(sample.key, seed=0, failure="environment", error="gone")
    object.__setattr__(sample, "scores", {"correct": score})
    return sample


def test_the_running_score_leaves_lost_samples_out_and_tells_what_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tally = Tally("correct")
    for task, score in [("a", 1.0), ("b", 0.0), ("c", 1.0), ("d", 1.0), ("e", None)]:
        tally.add(finished(task, score))
    now[0] = 110.0
    # Wilson's interval of 3 in 4, by hand: centre 0.6275, half width 0.3270.
    assert tally.words(25) == "correct 75.0 % [30.1, 95.4], 1 lost, 0.5/s, 40 s left"
    assert tally.words(5) == "correct 75.0 % [30.1, 95.4], 1 lost, 0.5/s"


def test_the_rate_is_that_of_late(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tally = Tally("correct")
    for _ in range(30):
        tally.add(finished("a", 1.0))
    now[0] = 30.0
    assert tally.rate() == 1.0
    for _ in range(300):
        tally.add(finished("a", 1.0))
    now[0] = 60.0
    assert tally.rate() == 10.0


def test_scores_are_shown_in_per_cent_and_the_reward_as_it_is():
    assert shown("correct", 0.5, 0.25, 0.75) == "50.0 % [25.0, 75.0]"
    assert shown("reward", 1.5, 1.0, 2.0) == "1.500 [1.000, 2.000]"
    assert shown("correct", 0.5, None, None) == "50.0 %"


def test_the_end_tells_scores_failures_and_what_is_missing():
    suite = SuiteResult(
        suite="quiz@1", score="correct", tasks=6, samples_per_task=2, planned=12, scored=8,
        missing=1, failures={"environment": 3}, if_failures_were_wrong=0.375,
        stop_reasons={"env_error": 3, "terminated": 8},
        estimates={"correct": Estimate(value=0.5, low=0.25, high=0.75, tasks=6, method="wilson")},
        amounts={"generated_tokens": Amount(total=90, mean=9, median=9, p95=9)}, cost=1.25,
    )  # fmt: skip
    console = Console(file=StringIO(), width=120)
    results = Results(plan=plan(), suites=(suite,), provenance=provenance([]))
    Display(console).results(results)
    assert console.file.getvalue().splitlines() == [
        "quiz@1  correct 50.0 % [25.0, 75.0]  (6 tasks x 2)",
        "  lost and not counted: 3 environment; 37.5 % if all were wrong",
        "  not played yet: 1 of 12",
        "  ended: 8 terminated, 3 env_error",
        "  90 generated tokens, cost 1.25",
    ]

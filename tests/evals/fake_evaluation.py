"""Folders of evaluations that nobody played: plan, samples and results, written by hand."""

import json

import numpy as np

from agentrl.core.types import ROOT, StopReason, ToolRecord, TrajectoryTree, Turn
from agentrl.engine.settings import ScriptedSettings
from agentrl.evals.plan import EvalPlan, PlannedSuite, Price
from agentrl.evals.results import Amount, Estimate, Provenance, Results, SuiteResult
from agentrl.evals.samples import Key, Sample, SampleLog, TurnText

HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</pre></details>{{ 7 * 7 }} | `` [a](javascript:alert(1)) \u202etxt.exe\u202c \ud800 "
    "\x00\x1b[31m e" + "\u0301" * 40 + " \u05e9\u05dc\u05d5\u05dd"
)


def sample(
    task,
    number=0,
    *,
    suite="toy@1",
    score=1.0,
    failure="",
    error="",
    prompt="<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow many?<|im_end|>\n"
    "<|im_start|>assistant\n",
    action="It is 4.",
    called=True,
):
    """A sample of two turns: a call of `search` with its result, then an answer."""
    tree = TrajectoryTree(task, [1, 2, 3], seed=7)
    calls = (ToolRecord("search", {"query": "four"}, True, 0.25),) if called else ()
    first = Turn(**arrays(2), tool_calls=calls, generate_seconds=0.5, env_seconds=0.25)
    last = Turn(**arrays(3), reward=score, rewards={"correct": score}, generate_seconds=0.5)
    node = tree.add(tree.add(ROOT, first), last)
    tree.end(node, StopReason.TERMINATED)
    scores = {} if failure else {"correct": score, "reward": score}
    return Sample(
        key=Key(suite, task, number),
        seed=7,
        scores=scores,
        stop_reason=StopReason.ENV_ERROR if failure else StopReason.TERMINATED,
        failure=failure,
        error=error,
        answers=(None, "4"),
        solved_turn=1 if score == 1.0 and not failure else None,
        turns=2,
        tool_calls=len(calls),
        prompt_tokens=10,
        generated_tokens=5,
        generate_seconds=1.0,
        env_seconds=0.25,
        prompt=prompt,
        texts=(TurnText("Let me look.", "four is 4"), TurnText(action, "")),
        tree=tree,
    )


def arrays(size):
    return {
        "action_ids": np.arange(size, dtype=np.int32),
        "logprobs": np.full(size, -0.5, np.float32),
        "entropies": np.full(size, 0.1, np.float32),
    }


def part(suite="toy@1", *, value=0.75, low=0.3, high=0.95, tasks=4, samples=1, **others):
    """Results of one suite; what is not given is consistent with four samples, none lost."""
    found = {
        "title": "Toys",
        "planned": tasks * samples,
        "scored": tasks * samples,
        "missing": 0,
        "stop_reasons": {"terminated": tasks * samples},
        "estimates": {
            "correct": Estimate(
                value=value, error=0.2, low=low, high=high, tasks=tasks, method="wilson"
            ),
            "reward": Estimate(
                value=value, error=0.2, low=low, high=high, tasks=tasks, method="cluster_t"
            ),
        },
        "amounts": {"turns": Amount(total=8.0, mean=2.0, median=2.0, p95=2.0)},
    }
    return SuiteResult(
        suite=suite, score="correct", tasks=tasks, samples_per_task=samples, **(found | others)
    )


def results(parts, *, policy="scripted:oracle", temperature=0.0):
    suites = tuple(
        PlannedSuite(
            name=one.suite.split("@")[0],
            version=int(one.suite.split("@")[1]),
            env="games/sokoban",
            score="correct",
            tasks=one.tasks,
            samples=one.samples_per_task,
            temperature=temperature,
        )
        for one in parts
    )
    return Results(
        plan=EvalPlan(
            policy=policy,
            engine=ScriptedSettings(script="oracle"),
            suites=suites,
            price=Price(prompt=1.0, generated=2.0),
        ),
        suites=tuple(parts),
        provenance=Provenance(
            agentrl="0.1.0",
            commit="abc123",
            python="3.11.7",
            platform="Linux",
            packages={"numpy": "2.0"},
            command="agentrl eval toy",
            started="2026-11-20T20:00:00+00:00",
            ended="2026-11-20T20:01:00+00:00",
            seconds=60.0,
        ),
    )


def write(folder, found, samples):
    """An evaluation's folder as `agentrl eval` leaves it; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(found.plan.model_dump_json())
    (folder / "results.json").write_text(found.model_dump_json())
    log = SampleLog(folder / "samples.jsonl")
    for one in samples:
        log.append(one)
    log.close()
    return folder


def four_samples(suite="toy@1"):
    """Three right ones and a wrong one."""
    return [sample(f"t{n}", suite=suite, score=1.0 if n else 0.0) for n in range(4)]


def with_nulls(path):
    """What a writer leaves for values that are not finite."""
    data = json.loads(path.read_text())
    data["suites"][0]["estimates"]["correct"] |= {"value": None, "low": None, "high": None}
    path.write_text(json.dumps(data))

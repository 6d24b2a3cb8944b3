"""The tasks of `evaluation.py` evaluated by other people's frameworks, in their own interpreters.

    .venv-peers/inspect/bin/python benchmarks/evaluation_peers.py inspect URL SAMPLES FOLDER
    .venv-peers/verifiers/bin/python benchmarks/evaluation_peers.py verifiers URL SAMPLES FOLDER

Prints one JSON line: seconds from the call to its return, with everything written, the processor
time of it, and how many samples were right. Importing the framework is no part of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

TURNS = 4
HINT = "Go on."


def clocks() -> tuple[float, float]:
    """Seconds of the wall clock, and of processor time in this process and those it started."""
    used = os.times()
    return time.perf_counter(), sum(used[:4])


def by_inspect(url: str, samples: int, folder: Path) -> dict[str, float]:
    """By inspect_ai, with 256 samples and connections at once."""
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import Generate, TaskState, solver

    @solver
    def talk():
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            for turn in range(TURNS):
                state = await generate(state)
                if turn + 1 < TURNS:
                    state.messages.append(ChatMessageUser(content=HINT))
            return state

        return solve

    rows = [Sample(input=f"Question {n}", target="42", id=n + 1) for n in range(samples)]
    task = Task(dataset=MemoryDataset(rows), solver=talk(), scorer=includes())
    config = GenerateConfig(max_connections=min(samples, 256))
    model = get_model("openai-api/instant/policy", base_url=url, api_key="none", config=config)
    started = clocks()
    (log,) = evaluate(
        task, model=model, max_samples=min(samples, 256), display="none", log_dir=str(folder),
        log_level="error",
    )  # fmt: skip
    seconds, processor = (now - then for now, then in zip(clocks(), started, strict=True))
    assert log.status == "success" and log.results is not None, log.error
    (score,) = log.results.scores
    return {
        "seconds": seconds,
        "processor": processor,
        "right": score.metrics["accuracy"].value * samples,
    }


def by_verifiers(url: str, samples: int, folder: Path) -> dict[str, float]:
    """By verifiers v1, its agent a chat loop in this process; its own start a process for each."""
    os.environ["BENCH_TALK"] = str(samples)
    sys.path.insert(0, str(Path(__file__).parent))
    import verifiers.v1 as vf
    from verifiers.v1.cli.eval.runner import run_eval
    from verifiers.v1.configs.cli.eval import EvalConfig

    from agentrl.adapters import verifiers_program

    sys.modules.setdefault(verifiers_program.NAME, verifiers_program)
    kind = vf.env_config_type("vf_talk", "")
    talker = {"harness": {"id": verifiers_program.NAME}, "runtime": {"type": "subprocess"}}
    env = kind.model_validate({"taskset": {"id": "vf_talk"}, "talker": talker})
    config = EvalConfig(
        env=env, model="policy", client=vf.EvalClientConfig(base_url=url, api_key_var="NO_KEY"),
        max_concurrent=256, rich=None, push=False, output_dir=folder,
    )  # fmt: skip
    os.environ["NO_KEY"] = "none"
    started = clocks()
    episodes = asyncio.run(run_eval(config))
    seconds, processor = (now - then for now, then in zip(clocks(), started, strict=True))
    right = sum(trace.reward for episode in episodes for trace in episode.traces)
    return {"seconds": seconds, "processor": processor, "right": right}


if __name__ == "__main__":
    name, url, samples, folder = sys.argv[1:]
    run = {"inspect": by_inspect, "verifiers": by_verifiers}[name]
    print(json.dumps(run(url, int(samples), Path(folder))))

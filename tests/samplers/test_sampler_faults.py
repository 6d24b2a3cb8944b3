"""Whatever fails at whatever call: nothing is raised, left open, or lost without a word."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, RuleEngine, stage
from sampler_fakes import by_turn, starter

from agentrl.core.types import StopReason, Task
from agentrl.samplers import (
    AepoSampler,
    ArpoReleasedSampler,
    ArpoSampler,
    At2poSampler,
    ChainSampler,
    MctsSampler,
    SpoSampler,
    TreeSampler,
)


class Fault:
    """Raises at call number `at` of `operation`."""

    def __init__(self, operation: str, at: int) -> None:
        self.operation, self.at, self.calls = operation, at, 0

    def __call__(self, operation: str) -> None:
        if operation == self.operation:
            self.calls += 1
            if self.calls == self.at + 1:
                raise OSError("this one fails")


def faulty(fault: Fault, made: list[CountEnv]) -> type[CountEnv]:
    class Faulty(CountEnv):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        async def reset(self, task, *, seed):
            fault("reset")
            return await super().reset(task, seed=seed)

        async def step(self, action):
            fault("step")
            return await super().step(action)

        async def fork(self):
            fault("fork")
            twin = await super().fork()
            twin.closed = 0
            made.append(twin)
            return twin

        async def close(self):
            await super().close()
            fault("close")

    return Faulty


@pytest.mark.parametrize("operation", ["reset", "step", "fork", "close", "generate"])
@pytest.mark.parametrize(
    "sampler",
    [
        ChainSampler(trajectories=3),
        TreeSampler(trees=2, expansions=2, rounds=2),
        At2poSampler(initial=2, expansions=2, rounds=2),
        SpoSampler(widths=(2, 2)),
        ArpoSampler(trajectories=4, initial=2),
        ArpoReleasedSampler(trajectories=4, initial=1, branch_probability=1.0),
        AepoSampler(trajectories=4),
        MctsSampler(simulations=4),
    ],
    ids=lambda sampler: sampler.type,
)
async def test_a_failure_costs_its_own_line_and_is_noted(sampler, operation: str) -> None:
    for at in count():
        fault, made = Fault(operation, at), []
        engine = RuleEngine(by_turn([1.0, 2.0, 3.0]))
        generate = engine.generate

        async def failing(prompt, sampling, fault=fault, generate=generate):
            fault("generate")
            return await generate(prompt, sampling)

        engine.generate = failing  # type: ignore[method-assign]
        setting = stage(engine, faulty(fault, made), slots=2)
        trees = await sampler.sample(Task("t"), starter(setting), seed=0)
        assert [env.closed for env in made] == [1] * len(made)
        assert not setting.live and setting.slots._value == 2
        ends = [reason for tree in trees for reason in tree.leaves.values()]
        whole = ends.count(StopReason.TERMINATED)
        if fault.calls <= at or operation == "close":
            assert whole == len(ends) == sampler.trajectories
        else:
            assert whole <= sampler.trajectories
            assert sum(len(tree.failures) for tree in trees) == 1
        if fault.calls <= at:
            break
    assert at > 0 or operation == "fork"

"""The thread of a vLLM engine when its start is given up and when its engine hangs; no vLLM."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace

import pytest

import agentrl.engine.vllm as engine_room
from agentrl.core.errors import EngineError
from agentrl.engine import VllmSettings
from agentrl.engine.vllm import VllmEngine
from agentrl.engine.vllm_loop import EngineLoop

PARAMS = SimpleNamespace(prompt_logprobs=None)


class Engine:
    """Hangs in its first step until it may go on."""

    def __init__(self) -> None:
        self.may_go_on, self.asked = threading.Event(), 0

    def add_request(self, name: str, prompt: object, params: object) -> str:
        self.asked += 1
        return name

    def has_unfinished_requests(self) -> bool:
        return self.asked > 0

    def step(self) -> list[object]:
        self.may_go_on.wait(60)
        return []


@pytest.mark.parametrize("built_first", [False, True])
async def test_an_engine_whose_start_is_cancelled_is_freed(built_first, monkeypatch) -> None:
    """Nobody holds it then: neither while it is built nor in the moment in which it is there."""
    building, may_be_built, ended = (threading.Event() for _ in range(3))
    loops: list[EngineLoop] = []

    class Kept(EngineLoop):
        def __init__(self, build, end) -> None:
            super().__init__(build, end)
            loops.append(self)

    def build(self: VllmEngine) -> Engine:
        building.set()
        may_be_built.wait(60)
        return Engine()

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(VllmEngine, "_build", build)
    monkeypatch.setattr(engine_room, "EngineLoop", Kept)
    monkeypatch.setattr(engine_room, "_end", lambda engine: ended.set())
    starting = asyncio.ensure_future(VllmEngine(VllmSettings(), "none").start())
    while not building.is_set():
        await asyncio.sleep(0.001)
    if built_first:
        may_be_built.set()
        loops[0]._ready.result(60)  # the event loop stands still, and has not heard of it
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    may_be_built.set()
    assert await asyncio.to_thread(ended.wait, 60)


async def test_an_exit_while_it_is_built_is_an_error_of_the_engine(monkeypatch) -> None:
    def build(self: VllmEngine) -> Engine:
        raise SystemExit(1)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(VllmEngine, "_build", build)
    with pytest.raises(EngineError, match=r"could not start with 'none': SystemExit\(1\)"):
        await asyncio.wait_for(VllmEngine(VllmSettings(), "none").start(), 60)


def test_an_engine_that_hangs_in_a_step_holds_nobody_up(caplog) -> None:
    engine, ended = Engine(), threading.Event()
    loop = EngineLoop(lambda: engine, lambda _: ended.set())  # type: ignore[arg-type, return-value]
    loop.start().result(60)
    asked = loop.submit([1], PARAMS)  # type: ignore[arg-type]
    while not engine.asked:
        pass
    loop.stop(seconds=0.01)
    with pytest.raises(EngineError, match="is not running"):
        asked.result(60)
    assert "hangs in a step for 0.01 s" in caplog.text
    engine.may_go_on.set()
    assert ended.wait(60)

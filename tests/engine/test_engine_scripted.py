"""Engines without a model."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest

from agentrl.core.errors import EngineError
from agentrl.engine import ScriptedSettings, build
from agentrl.engine.base import Engine, Sampling
from agentrl.engine.scripted import RandomEngine, ScriptedEngine, log_normal_latency
from agentrl.engine.tokens import stop_string


class Letters:
    """One token per character."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(one) for one in text]

    def decode(self, token_ids, *, skip_special_tokens: bool = False) -> str:
        return "".join(chr(one) for one in token_ids)

    def __len__(self) -> int:
        return 128


async def test_a_script_answers_the_context_in_tokens():
    engine = ScriptedEngine(lambda context: context.upper(), Letters())
    found = await engine.generate(Letters().encode("paris"), Sampling())
    assert Letters().decode(found.token_ids) == "PARIS"
    assert found.logprobs.tolist() == found.entropies.tolist() == [0.0] * 5
    assert (found.entropy_kind, found.finish_reason) == ("none", "stop")
    assert found.prefilled_tokens == 5
    assert isinstance(engine, Engine)


async def test_a_script_may_be_a_coroutine_and_is_cut_at_max_tokens():
    async def script(context: str) -> str:
        await asyncio.sleep(0)
        return "abcdef"

    found = await ScriptedEngine(script, Letters()).generate([65], Sampling(max_tokens=4))
    assert (Letters().decode(found.token_ids), found.finish_reason) == ("abcd", "length")


async def test_a_script_that_raises_is_an_engine_error_with_its_context():
    def script(context: str) -> str:
        raise KeyError("no answer")

    engine = ScriptedEngine(script, Letters())
    with pytest.raises(EngineError, match=r"failed on 'who'.*no answer"):
        await engine.generate(Letters().encode("who"), Sampling())
    with pytest.raises(EngineError, match="cannot score"):
        await engine.score([1, 2])


async def test_a_load_only_moves_the_version():
    engine = ScriptedEngine(lambda context: "a", Letters())
    await engine.load(Path("anywhere"), 3)
    assert (await engine.generate([65], Sampling())).policy_version == engine.version == 3


async def test_random_tokens_are_seeded_and_say_their_own_probability():
    engine = RandomEngine(50)
    asked = Sampling(max_tokens=200, seed=4)
    first, second = [await engine.generate([1], asked) for _ in range(2)]
    assert first.token_ids.tolist() == second.token_ids.tolist()
    assert set(first.token_ids) <= set(range(50))
    np.testing.assert_allclose(first.logprobs, -math.log(50), rtol=1e-6)
    np.testing.assert_allclose(first.entropies, math.log(50), rtol=1e-6)
    stop = int(first.token_ids[7])
    cut = await engine.generate([1], Sampling(max_tokens=200, seed=4, stop_token_ids=(stop,)))
    until = first.token_ids.tolist().index(stop) + 1
    assert cut.token_ids.tolist() == first.token_ids[:until].tolist()
    assert (await engine.score([1, 2, 3])).tolist() == pytest.approx([-math.log(50)] * 2)


async def test_cancelling_ends_the_delay():
    engine = RandomEngine(5, latency=lambda: 60.0)
    task = asyncio.create_task(engine.generate([1], Sampling()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_latencies_have_the_mean_asked_for_are_seeded_and_capped():
    draw = log_normal_latency(0.2, sigma=1.0, seed=1)
    values = [draw() for _ in range(20_000)]
    again = log_normal_latency(0.2, sigma=1.0, seed=1)
    assert np.mean(values) == pytest.approx(0.2, rel=0.05)
    assert values[:5] == [again() for _ in range(5)]
    assert max(log_normal_latency(0.2, cap=0.3, seed=1)() for _ in range(100)) <= 0.3


async def test_build_knows_random_and_wants_a_script_for_other_names(policy):
    engine = build(ScriptedSettings(), str(policy.folder))
    assert len((await engine.generate([1], Sampling(max_tokens=3))).token_ids) == 3
    with pytest.raises(EngineError, match="'gold', which names a script that was not given"):
        build(ScriptedSettings(script="gold"), str(policy.folder))
    scripted = build(
        ScriptedSettings(script="gold"), str(policy.folder), script=lambda context: "paris"
    )
    found = await scripted.generate([10], Sampling())
    assert policy.tokenizer.decode(found.token_ids) == "paris"


def test_a_stop_string_is_found_where_it_ends_the_tokens():
    ids = Letters().encode("so <answer>42</answer>")
    assert stop_string(Letters(), ids, ("</search>", "</answer>")) == "</answer>"
    assert stop_string(Letters(), ids[:-1], ("</answer>",)) is None
    assert stop_string(Letters(), [], ("</answer>",)) is None

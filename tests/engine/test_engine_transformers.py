"""The reference engine against a plain forward pass."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from agentrl.core.errors import EngineError
from agentrl.engine import TransformersSettings, build
from agentrl.engine.base import Engine, Sampling


@pytest.fixture
async def engine(policy):
    engine = build(TransformersSettings(max_model_len=96), str(policy.folder))
    await engine.start()
    yield engine
    await engine.close()


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
async def test_logprobs_and_entropies_equal_a_plain_forward_pass(
    engine, policy, forward, temperature
):
    prompts = [policy.prompt(i, 4 + 5 * i) for i in range(6)]
    asked = [Sampling(temperature=temperature, max_tokens=12, seed=i) for i in range(6)]
    completions = await asyncio.gather(*map(engine.generate, prompts, asked))
    for prompt, found in zip(prompts, completions, strict=True):
        logprobs, entropy = forward(policy.models[0], prompt, found.token_ids, temperature or 1.0)
        np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-5)
        np.testing.assert_allclose(found.entropies, entropy, atol=1e-5)
        assert found.entropy_kind == "exact"
        assert found.finish_reason == "length"
        assert found.prefilled_tokens == len(prompt)


async def test_a_seed_fixes_the_completion_whatever_it_is_batched_with(engine, policy):
    sampling = Sampling(max_tokens=16, seed=7)
    alone = await engine.generate(policy.prompt(0), sampling)
    others = [engine.generate(policy.prompt(i, 9 + i), Sampling(max_tokens=9)) for i in range(5)]
    together, *_ = await asyncio.gather(engine.generate(policy.prompt(0), sampling), *others)
    other_seed = await engine.generate(policy.prompt(0), Sampling(max_tokens=16, seed=8))
    assert together.token_ids.tolist() == alone.token_ids.tolist()
    assert other_seed.token_ids.tolist() != alone.token_ids.tolist()


async def test_greedy_takes_the_most_likely_token(engine, policy):
    import torch

    found = await engine.generate(policy.prompt(1), Sampling(temperature=0.0, max_tokens=1))
    logits = policy.models[0](torch.tensor([policy.prompt(1)])).logits[0, -1]
    assert found.token_ids.tolist() == [int(logits.argmax())]


async def test_a_stop_token_ends_the_completion_and_stays_in_it(engine, policy):
    free = await engine.generate(policy.prompt(2), Sampling(max_tokens=20, seed=3))
    third = int(free.token_ids[2])
    found = await engine.generate(
        policy.prompt(2), Sampling(max_tokens=20, seed=3, stop_token_ids=(third,))
    )
    until = free.token_ids.tolist().index(third) + 1
    assert found.token_ids.tolist() == free.token_ids[:until].tolist()
    assert found.finish_reason == "stop"


async def test_a_stop_string_that_spans_tokens_ends_the_completion_with_its_last_token(
    engine, policy
):
    free = await engine.generate(policy.prompt(3), Sampling(max_tokens=20, seed=4))
    decode = policy.tokenizer.decode
    pair = decode(free.token_ids[4:6].tolist())
    found = await engine.generate(policy.prompt(3), Sampling(max_tokens=20, seed=4, stop=(pair,)))
    ids = found.token_ids.tolist()
    assert pair in decode(ids)
    assert pair not in decode(ids[:-1])
    assert ids == free.token_ids[: len(ids)].tolist()
    assert found.finish_reason == "stop"


async def test_a_cancelled_request_leaves_the_others_alone(engine, policy):
    doomed = asyncio.create_task(engine.generate(policy.prompt(0), Sampling(max_tokens=60)))
    kept = asyncio.create_task(engine.generate(policy.prompt(1), Sampling(max_tokens=5, seed=1)))
    await asyncio.sleep(0.01)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    assert len((await kept).token_ids) == 5


async def test_a_load_changes_version_and_logprobs(engine: Engine, policy, forward):
    for version in (1, 2):
        await engine.load(policy.weights[version], version)
        found = await engine.generate(policy.prompt(5), Sampling(max_tokens=8, seed=1))
        logprobs, _ = forward(policy.models[version], policy.prompt(5), found.token_ids)
        np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-5)
        assert found.policy_version == engine.version == version


def interrupted_after(engine, counts):
    """Let somebody ask for the model after so many sampled steps, and wait until they have."""
    plain, loop, asked = engine._sample, asyncio.get_running_loop(), asyncio.Event()
    steps = 0

    def sample(*arguments):
        nonlocal steps
        chosen = plain(*arguments)
        steps += 1
        if steps in counts:
            loop.call_soon_threadsafe(asked.set)
            while not engine._interrupting:
                time.sleep(0.001)
        return chosen

    engine._sample = sample
    return asked


async def test_a_load_comes_between_two_tokens_and_each_has_its_own_version_and_logprob(
    engine, policy, forward
):
    asked = interrupted_after(engine, {3, 10})
    sizes = [2, 7, 30, 30]  # the first ends before any load, the second before the other
    prompts = [policy.prompt(i, 4 + 9 * i) for i in range(4)]
    playing = asyncio.gather(
        *(
            engine.generate(prompt, Sampling(max_tokens=size, seed=i, temperature=0.8))
            for i, (prompt, size) in enumerate(zip(prompts, sizes, strict=True))
        )
    )
    for version in (1, 2):
        await asked.wait()
        asked.clear()
        await engine.load(policy.weights[version], version)
    found = await playing
    expected = [None, [0] * 3 + [1] * 4, *[[0] * 3 + [1] * 7 + [2] * 20] * 2]
    for one, prompt, versions in zip(found, prompts, expected, strict=True):
        assert (None if one.versions is None else one.versions.tolist()) == versions
        assert one.policy_version == 0
        for version in range(3):
            mine = np.flatnonzero(np.asarray(versions or [0, 0]) == version)
            logprobs, entropy = forward(policy.models[version], prompt, one.token_ids, 0.8)
            np.testing.assert_allclose(one.logprobs[mine], logprobs[mine], atol=1e-5)
            np.testing.assert_allclose(one.entropies[mine], entropy[mine], atol=1e-5)
    again = [0, len(prompts[1]) + 3, *[2 * len(prompt) + 3 + 10 for prompt in prompts[2:]]]
    assert [one.prefilled_tokens for one in found] == [
        len(prompt) + more for prompt, more in zip(prompts, again, strict=True)
    ]


async def test_a_score_between_two_tokens_changes_nothing_of_the_completion(engine, policy):
    sampling = Sampling(max_tokens=40, seed=3)
    alone = await engine.generate(policy.prompt(0), sampling)
    asked = interrupted_after(engine, {5})
    playing = asyncio.create_task(engine.generate(policy.prompt(0), sampling))
    await asked.wait()
    assert len(await engine.score(policy.prompt(1))) == 23
    assert not playing.done()
    found = await playing
    assert found.token_ids.tolist() == alone.token_ids.tolist()
    np.testing.assert_allclose(found.logprobs, alone.logprobs, atol=1e-5)
    assert found.versions is None


async def test_score_is_the_forward_pass_at_temperature_one(engine, policy, forward):
    ids = policy.prompt(4, 30)
    logprobs, _ = forward(policy.models[0], ids[:1], ids[1:])
    np.testing.assert_allclose(await engine.score(ids), logprobs, atol=1e-5)
    assert len(await engine.score(ids[:1])) == 0


async def test_weights_that_do_not_fit_are_refused_and_change_nothing(engine, policy, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(policy.weights[1])
    state["model.norm.weight"] = torch.ones(3)
    save_file(state, tmp_path / "wrong.safetensors")
    before = await engine.score(policy.prompt(0))
    with pytest.raises(EngineError, match=r"model.norm.weight: the model has \(64,\), the file"):
        await engine.load(tmp_path / "wrong.safetensors", 1)
    with pytest.raises(EngineError, match="no weights at"):
        await engine.load(tmp_path / "absent.safetensors", 1)
    assert engine.version == 0
    assert (await engine.score(policy.prompt(0))).tolist() == before.tolist()


async def test_a_prompt_beyond_the_limit_is_refused_and_a_long_answer_is_cut(engine, policy):
    with pytest.raises(EngineError, match="prompt has 96 tokens, and max_model_len = 96"):
        await engine.generate(policy.prompt(0, 96), Sampling())
    with pytest.raises(EngineError, match="empty prompt"):
        await engine.generate([], Sampling())
    cut = await engine.generate(policy.prompt(0, 90), Sampling(max_tokens=50))
    assert (len(cut.token_ids), cut.finish_reason) == (6, "length")


async def test_tied_embeddings_take_new_weights(tied_policy, forward):
    engine = build(TransformersSettings(), str(tied_policy.folder))
    await engine.start()
    await engine.load(tied_policy.weights[1], 1)
    ids = tied_policy.prompt(4)
    logprobs, _ = forward(tied_policy.models[1], ids[:1], ids[1:])
    np.testing.assert_allclose(await engine.score(ids), logprobs, atol=1e-5)
    await engine.close()
    await engine.close()


async def test_an_engine_that_was_not_started_or_has_no_model_says_so(tmp_path):
    engine = build(TransformersSettings(), str(tmp_path / "nothing"))
    with pytest.raises(EngineError, match="call start"):
        await engine.generate([1], Sampling())
    with pytest.raises(EngineError, match="no model could be loaded from"):
        await engine.start()

"""vLLM against a plain forward pass of the same weights, before and after new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from agentrl.core.errors import EngineError, WeightSyncError
from agentrl.engine import VllmSettings, build
from agentrl.engine.base import Completion, Sampling
from agentrl.engine.probe import PROBE_BOUNDS, check_probe
from agentrl.engine.vllm import VllmEngine
from agentrl.engine.weights import WeightFile

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")

SETTINGS = VllmSettings(max_model_len=256, max_num_seqs=32, threads=1)
FAMILIES = ["policy", "tied_policy"]


@pytest.fixture(scope="module", params=FAMILIES)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[VllmEngine, object]]:
    """One engine for the whole module and each family; tests load the weights that they need."""
    family = request.getfixturevalue(request.param)
    engine = build(SETTINGS, str(family.folder))
    asyncio.run(engine.start())
    yield engine, family
    asyncio.run(engine.close())


async def _several(engine, family, count: int = 12, **sampling) -> list[Completion]:
    asked = [
        engine.generate(family.prompt(i, 20 + i), Sampling(max_tokens=24, seed=i, **sampling))
        for i in range(count)
    ]
    return await asyncio.gather(*asked)


async def test_parity_before_and_after_two_loads(served, forward):
    engine, family = served
    for version, (weights, model) in enumerate(zip(family.weights, family.models, strict=True)):
        if version:
            await engine.load(weights, version)
        for temperature in (1.0, 0.7):
            found = await _several(engine, family, temperature=temperature)
            for i, one in enumerate(found):
                prompt = family.prompt(i, 20 + i)
                logprobs, entropy = forward(model, prompt, one.token_ids, temperature)
                np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-5)
                np.testing.assert_allclose(one.entropies, entropy, atol=1e-5)
                assert (one.policy_version, one.entropy_kind) == (version, "exact")
        ids = family.prompt(3, 60)
        scored, _ = forward(model, ids[:1], ids[1:])
        np.testing.assert_allclose(await engine.score(ids), scored, atol=1e-5)


async def test_filtered_and_greedy_numbers_are_those_of_the_reference(served):
    engine, family = served
    await engine.load(family.weights[0], 1)
    import torch

    from agentrl.engine.distribution import entropies, sampling_logprobs

    for top_p, top_k, temperature in [(0.7, 0, 1.0), (1.0, 5, 0.8), (0.9, 20, 1.2), (1.0, 0, 0.0)]:
        for i, one in enumerate(
            await _several(engine, family, 4, top_p=top_p, top_k=top_k, temperature=temperature)
        ):
            prompt = family.prompt(i, 20 + i)
            with torch.no_grad():
                logits = family.models[0](torch.tensor([[*prompt, *one.token_ids]])).logits[0]
            count = len(one.token_ids)
            rows = sampling_logprobs(
                logits[len(prompt) - 1 : -1],
                torch.full((count,), temperature),
                torch.full((count,), top_k),
                torch.full((count,), top_p),
            )
            taken = rows[torch.arange(count), torch.tensor(one.token_ids).long()]
            np.testing.assert_allclose(one.logprobs, taken.numpy(), atol=1e-4)
            np.testing.assert_allclose(one.entropies, entropies(rows).numpy(), atol=1e-4)
            if temperature == 0:
                assert one.token_ids.tolist() == rows.argmax(-1).tolist()


async def test_a_seed_fixes_the_completion_whatever_it_is_batched_with(served):
    engine, family = served
    together = await _several(engine, family)
    alone = [await one for one in [_several(engine, family, 1) for _ in range(2)]]
    assert alone[0][0].token_ids.tolist() == together[0].token_ids.tolist()
    assert alone[1][0].token_ids.tolist() == together[0].token_ids.tolist()


async def test_stop_marks_end_the_completion_and_stay_in_it(served):
    engine, family = served
    prompt, decode = family.prompt(3), family.tokenizer.decode
    free = await engine.generate(prompt, Sampling(max_tokens=20, seed=4))
    ids = free.token_ids.tolist()
    by_id = await engine.generate(prompt, Sampling(max_tokens=20, seed=4, stop_token_ids=(ids[5],)))
    assert by_id.token_ids.tolist() == ids[: ids.index(ids[5]) + 1]
    pair = decode(ids[7:9])
    by_text = await engine.generate(prompt, Sampling(max_tokens=20, seed=4, stop=(pair,)))
    found = by_text.token_ids.tolist()
    assert pair in decode(found)
    assert pair not in decode(found[:-1])
    assert found == ids[: len(found)]
    assert len(by_text.logprobs) == len(by_text.entropies) == len(found)
    assert by_id.finish_reason == by_text.finish_reason == "stop"


async def test_the_end_token_alone_does_not_end_a_completion(served):
    engine, family = served
    end = family.tokenizer.eos_token_id
    found = await _several(engine, family, 150, temperature=2.0)
    assert {len(one.token_ids) for one in found} == {24}
    assert any(end in one.token_ids[:-1] for one in found)
    with pytest.raises(EngineError, match=r"vllm refuses .*temperature"):
        await _several(engine, family, 1, temperature=5.0)


async def test_the_prefix_cache_is_used_and_never_crosses_a_version(served, forward):
    engine, family = served
    prompt = family.prompt(40, 100)
    sampling = Sampling(max_tokens=4, seed=1)
    await engine.load(family.weights[1], 7)
    first = await engine.generate(prompt, sampling)
    second = await engine.generate(prompt, sampling)
    await engine.load(family.weights[2], 8)
    third = await engine.generate(prompt, sampling)
    assert [first.prefilled_tokens, second.prefilled_tokens] == [100, 100 - 96]
    assert third.prefilled_tokens == 100
    logprobs, _ = forward(family.models[2], prompt, third.token_ids)
    np.testing.assert_allclose(third.logprobs, logprobs, atol=1e-5)


async def test_loaded_weights_are_the_engines_own_whatever_becomes_of_the_file(served, tmp_path):
    from safetensors.torch import load_file

    engine, family = served
    shared = WeightFile(tmp_path / "shared.safetensors")
    shared.write(load_file(family.weights[1]))
    await engine.load(shared.path, 1)
    before = await engine.score(family.prompt(0))
    shared.write(load_file(family.weights[2]))
    assert (await engine.score(family.prompt(0))).tolist() == before.tolist()
    await engine.load(shared.path, 2)
    assert np.abs(await engine.score(family.prompt(0)) - before).max() > 0.1


async def test_a_load_comes_between_two_tokens_and_each_has_its_own_version_and_logprob(
    served, forward
):
    engine, family = served
    await engine.load(family.weights[0], 1)
    long = Sampling(max_tokens=150, seed=5)
    # The same prompt twice: blocks of the old weights must not serve the new ones.
    prompts = [family.prompt(i // 2, 40) for i in range(8)]
    before = [asyncio.create_task(engine.generate(prompt, long)) for prompt in prompts]
    await asyncio.sleep(0.1)
    await engine.load(family.weights[1], 2)
    after = [asyncio.create_task(engine.generate(prompt, long)) for prompt in prompts]
    await asyncio.sleep(0.1)
    await engine.load(family.weights[2], 3)
    assert not all(task.done() for task in before)
    mixed = 0
    for first, tasks in ((1, before), (2, after)):
        for prompt, one in zip(prompts, await asyncio.gather(*tasks), strict=True):
            versions = np.full(150, one.policy_version) if one.versions is None else one.versions
            assert one.policy_version == versions[0] >= first
            assert np.all(np.diff(versions) >= 0) and len(versions) == 150
            mixed += one.versions is not None
            for version in set(versions.tolist()):
                mine = np.flatnonzero(versions == version)
                logprobs, entropy = forward(family.models[version - 1], prompt, one.token_ids)
                np.testing.assert_allclose(one.logprobs[mine], logprobs[mine], atol=2e-5)
                np.testing.assert_allclose(one.entropies[mine], entropy[mine], atol=2e-5)
            computed = one.prefilled_tokens - 40 * (1 + len(set(versions.tolist())))
            assert computed <= 2 * 150
    assert mixed >= 8


async def test_a_prompt_beyond_the_limit_is_refused_and_a_long_answer_is_cut(served):
    engine, family = served
    with pytest.raises(EngineError, match="prompt has 300 tokens, and max_model_len = 256"):
        await engine.generate(family.prompt(0, 300), Sampling())
    with pytest.raises(EngineError, match="cannot score 256 tokens"):
        await engine.score(family.prompt(0, 256))
    with pytest.raises(EngineError, match="refused a request"):
        await engine.generate([100_000], Sampling())
    cut = await engine.generate(family.prompt(0, 250), Sampling(max_tokens=50))
    assert (len(cut.token_ids), cut.finish_reason) == (6, "length")


async def test_more_requests_of_mixed_lengths_than_fit_at_once_all_finish(served):
    engine, family = served
    asked = [
        engine.generate(
            family.prompt(i, 1 + (i * 37) % 200), Sampling(max_tokens=1 + i % 40, seed=i)
        )
        for i in range(100)
    ]
    found = await asyncio.gather(*asked)
    assert [len(one.token_ids) for one in found] == [1 + i % 40 for i in range(100)]


async def test_cancelled_requests_leave_the_engine(served):
    engine, family = served
    doomed = [
        asyncio.create_task(engine.generate(family.prompt(i), Sampling(max_tokens=200)))
        for i in range(8)
    ]
    await asyncio.sleep(0.05)
    for one in doomed:
        one.cancel()
    results = await asyncio.gather(*doomed, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in results)
    # A load waits for what still runs: it would take the 200 tokens if anything did.
    await asyncio.wait_for(engine.load(family.weights[0], 1), timeout=30)
    assert len((await engine.generate(family.prompt(1), Sampling(max_tokens=5))).token_ids) == 5


async def test_a_skipped_load_is_caught_and_named(served, forward):
    engine, family = served
    await engine.load(family.weights[1], 1)
    probes = [family.prompt(i, 30) for i in range(4)]
    found = [await engine.score(ids) for ids in probes]
    old, new = ([forward(family.models[v], ids[:1], ids[1:])[0] for ids in probes] for v in (1, 2))
    bound = PROBE_BOUNDS["float32"]
    report = check_probe(found, old, bound=bound, version=1)
    assert report.largest < 1e-5
    with pytest.raises(WeightSyncError, match=r"kept old weights.*those of version 1"):
        check_probe(found, new, bound=bound, version=2, previous_logprobs=old)


async def test_a_failed_load_ends_the_engine_and_start_brings_it_back(served, tmp_path, forward):
    from safetensors.torch import load_file, save_file

    engine, family = served
    state = load_file(family.weights[1])
    del state["model.layers.1.mlp.down_proj.weight"]
    save_file(state, tmp_path / "partial.safetensors")
    with pytest.raises(EngineError, match="no weights at"):
        await engine.load(tmp_path / "absent.safetensors", 5)
    asked = Sampling(max_tokens=200, seed=1)
    running = asyncio.create_task(engine.generate(family.prompt(0), asked))
    await asyncio.sleep(0.05)
    with pytest.raises(EngineError, match=r"version 5.*lacks weights of 1 parameters.*down_proj"):
        await engine.load(tmp_path / "partial.safetensors", 5)
    with pytest.raises(EngineError, match="lacks weights of 1 parameters"):
        await running  # its next token would come from neither the old weights nor the new
    with pytest.raises(EngineError, match=r"not running: .*lacks weights.*call start"):
        await engine.generate(family.prompt(0), Sampling())
    await engine.start()
    assert engine.version == 0
    found = await engine.generate(family.prompt(0), Sampling(max_tokens=10, seed=1))
    logprobs, _ = forward(family.models[0], family.prompt(0), found.token_ids)
    np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-5)


async def test_a_model_that_does_not_exist_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match="vllm could not start with"):
        await build(SETTINGS, str(tmp_path / "nothing")).start()

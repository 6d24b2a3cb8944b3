"""The OpenAI client against vLLM's own server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from vllm_server import served

from agentrl.engine import OpenAISettings, build
from agentrl.engine.base import Sampling

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def server(policy, tmp_path_factory) -> Iterator[str]:
    """Base URL of a server of the policy."""
    folder = tmp_path_factory.mktemp("server")
    with served(str(policy.folder), folder, name="policy", max_model_len=256) as url:
        yield url


async def test_tokens_and_logprobs_are_those_of_a_plain_forward_pass(server, policy, forward):
    engine = build(OpenAISettings(base_url=server, model="policy"), str(policy.folder))
    await engine.start()
    for temperature in (1.0, 0.7):
        asked = Sampling(max_tokens=12, seed=3, temperature=temperature)
        found = await engine.generate(policy.prompt(1), asked)
        logprobs, entropy = forward(
            policy.models[0], policy.prompt(1), found.token_ids, temperature
        )
        np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-4)
        assert (found.entropy_kind, len(found.token_ids)) == ("top_k", 12)
        assert (found.entropies <= entropy + 1e-3).all()
    stop = int(found.token_ids[4])
    cut = await engine.generate(
        policy.prompt(1),
        Sampling(max_tokens=12, seed=3, temperature=0.7, stop_token_ids=(stop,)),
    )
    until = found.token_ids.tolist().index(stop) + 1
    assert cut.token_ids.tolist() == found.token_ids[:until].tolist()
    await engine.close()

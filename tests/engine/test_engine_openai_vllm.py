"""The OpenAI client against vLLM's own server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from agentrl.engine import OpenAISettings, VllmSettings, build
from agentrl.engine.base import Sampling

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def server(policy, tmp_path_factory) -> Iterator[str]:
    """Base URL of a server of the policy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | VllmSettings(threads=1).environment()
    environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(policy.folder), "--served-model-name", "policy",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", "256", "--generation-config", "vllm", "--no-enable-chunked-prefill",
        "--logprobs-mode", "processed_logprobs",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(1)
        else:
            pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


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

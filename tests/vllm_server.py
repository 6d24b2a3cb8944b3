"""vLLM's own OpenAI-compatible server, started for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agentrl.engine.settings import VllmSettings

_SECONDS = 240


@contextmanager
def served(model: str, folder: Path, *, name: str, max_model_len: int) -> Iterator[str]:
    """Base URL of a server of `model`, which it calls `name`; its log is in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | VllmSettings(threads=1).environment()
    # The engine's settings leave its worker in the engine's process: one import of vLLM less.
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", model, "--served-model-name", name,
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", str(max_model_len), "--generation-config", "vllm",
        "--no-enable-chunked-prefill", "--logprobs-mode", "processed_logprobs",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        until = time.monotonic() + _SECONDS
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the server is not there: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False

"""The solutions of the shell tasks through the whole rollout path: all right, spoiled none."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from sweeps import calls, exceptions, malformed, swept

from agentrl.sandbox import DockerSettings, shared

DOCKER = {"type": "docker", "image": "agentrl-test:latest", "pull": "never", "containers": 4}
BUBBLEWRAP = {"type": "bubblewrap", "preload": []}


def need(sandbox):
    if sandbox["type"] == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not there: apt-get install bubblewrap")
    if sandbox["type"] == "docker":
        asked = ["sh", "-c", f"docker image inspect {DOCKER['image']}"]
        if subprocess.run(asked, capture_output=True, check=False).returncode:
            pytest.skip("no Docker daemon with the image agentrl-test:latest: run .ci/system")


async def play(split, sandbox, folder, *, script="oracle"):
    """Each task of the split once, in a sandbox that is gone afterwards."""
    need(sandbox)
    try:
        return await swept(
            "code/shell",
            {"sandbox": sandbox},
            folder=folder,
            tasks=split,
            script=script,
            at_once=4,
        )
    finally:
        if sandbox["type"] == "docker":
            await shared(DockerSettings(**sandbox)).close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "sandbox"),
    [
        pytest.param("train", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("eval", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("train", DOCKER, marks=pytest.mark.docker),
        pytest.param("eval", DOCKER, marks=pytest.mark.docker),
    ],
)
async def test_every_solution_passes_its_check(split, sandbox, tmp_path):
    played = await play(split, sandbox, tmp_path)
    assert (len(played), exceptions(played, 1.0)) == ({"train": 20, "eval": 12}[split], [])
    assert not calls(played)[False]
    assert not any(malformed(played))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "sandbox"),
    [
        pytest.param("train", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("eval", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("eval", DOCKER, marks=pytest.mark.docker),
    ],
)
async def test_spoiled_solutions_earn_nothing(split, sandbox, tmp_path):
    played = await play(split, sandbox, tmp_path, script="spoiled_oracle")
    assert (len(played), exceptions(played, 0.0)) == ({"train": 20, "eval": 12}[split], [])

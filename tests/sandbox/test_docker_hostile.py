"""Hostile programs in Docker: contained, with the right outcome, and nobody else the worse."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from docker_fakes import here, need_docker, settings
from hostile import LIMITS
from hostile_host import Host, check_contained, watched_host

from agentrl.sandbox.docker import DockerSandbox

pytestmark = [pytest.mark.slow, pytest.mark.docker]
CONTAINERS = 6


@pytest.fixture
def host(tmp_path) -> Iterator[Host]:
    with watched_host(tmp_path, f"agentrl-docker-canary-{os.getpid()}") as found:
        yield found


async def test_every_hostile_program_is_contained_in_docker(host):
    need_docker()
    sandbox = DockerSandbox(settings(containers=CONTAINERS, limits=LIMITS))
    session = await sandbox.open({"mine": b"untouched"})
    await session.execute("mine = 42")
    # The session keeps one of the containers.
    await check_contained(sandbox, session, host, at_once=CONTAINERS - 1, patience=120.0, late=5.0)
    await sandbox.close()
    assert here() == []

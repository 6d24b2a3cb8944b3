"""What the tests with a real Docker daemon share."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading

import pytest

from agentrl.sandbox import DockerSettings, Limits
from agentrl.sandbox.docker_daemon import LABEL

_SOCKET = "/var/run/docker.sock"
IMAGE = "agentrl-test:latest"
LIMITS = Limits(wall_seconds=5, cpu_seconds=3, memory_mb=96, processes=16, disk_mb=16)


def need_docker():
    """Skip where there is no daemon or no image."""
    found = subprocess.run(
        ["sh", "-c", f"docker image inspect {IMAGE}"], capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip("no Docker daemon with the image agentrl-test:latest: run .ci/system")


def settings(**more):
    return DockerSettings(**{"image": IMAGE, "pull": "never", "limits": LIMITS, **more})


def docker(*argv):
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=True)
    return done.stdout.split()


def containers_of(pid):
    """Ids of the containers that process `pid` started."""
    ids = docker("ps", "-aq", "--no-trunc", "--filter", f"label={LABEL}")
    shown = f"{{{{index .Config.Labels {LABEL!r}}}}}".replace("'", '"')
    found = []
    for id_ in ids:
        with contextlib.suppress(subprocess.CalledProcessError):
            if docker("inspect", "-f", shown, id_)[2] == str(pid):
                found.append(id_)
    return found


class Proxy:
    """A socket that carries everything to the daemon, until it is frozen."""

    def __init__(self, path):
        self.host = f"unix://{path}"
        self._daemon = os.environ.get("DOCKER_HOST", _SOCKET).removeprefix("unix://")
        self._flows = threading.Event()
        self._flows.set()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self):
        self._flows.clear()

    def close(self):
        self._flows.set()
        for one in (self._server, *self._pairs):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(self._daemon)
                self._pairs += [client, daemon]
                for ends in ((client, daemon), (daemon, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def here():
    """Containers that this process started and that are still there."""
    return containers_of(os.getpid())

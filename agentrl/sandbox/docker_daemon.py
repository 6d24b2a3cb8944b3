"""The Docker daemon: its containers started, swept and removed; each call in a thread, in time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from agentrl.core.errors import EnvError, SetupError
from agentrl.core.threads import in_thread
from agentrl.sandbox.base import Limits
from agentrl.sandbox.docker_link import Link, LinkError
from agentrl.sandbox.settings import DockerSettings

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

LABEL: Final = "agentrl.owner"
"""Label of every container of ours; its value names the process that started it."""

SHM_MB: Final = 8
_GUEST_MB: Final = 24
_PULL_SECONDS: Final = 1800.0
_NOBODY: Final = "65534:65534"
_MODULES: Final = ("docker_files", "docker_usage", "docker_filter", "docker_guest")
_INTERPRETER: Final = "docker_interpreter"
_BOOT: Final = """
import json, sys, types
*modules, interpreter = json.loads(sys.stdin.buffer.readline())
for name, text in modules:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), vars(module))
module.main(interpreter)
"""
"""What the container starts with; the guest comes by the pipe, so that no list of processes
shows it."""


class Shape(NamedTuple):
    """The limits that a container has for all its life."""

    memory_mb: int
    processes: int
    disk_mb: int

    @classmethod
    def of(cls, limits: Limits) -> Shape:
        """Those of these limits."""
        return cls(limits.memory_mb, limits.processes, limits.disk_mb)


@dataclass(slots=True, eq=False)
class Container:
    """A running container whose guest answers, and how many have used it."""

    id: str
    link: Link
    shape: Shape
    uses: int = 0


class Daemon:
    """Speaks to the daemon through the Docker SDK for Python.

    A call that the daemon does not answer within `settings.daemon_seconds` raises `EnvError`; its
    thread ends by the SDK's own timeout.
    """

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings
        self._client: APIClient | None = None
        self._label = f"{owner()} {secrets.token_hex(8)}"

    @property
    def address(self) -> str:
        """Where the daemon is asked for."""
        return self._settings.host or os.environ.get("DOCKER_HOST", "the default socket")

    async def prepare(self) -> None:
        """Connect, see to the image and remove what dead owners have left.

        Raises:
            SetupError: no daemon, no image, or an image that no sandbox can be made of.
            EnvError: the daemon does not answer.
        """
        seconds = self._settings.daemon_seconds
        self._client = await self._timed("connect", self._connect, seconds)
        found = await self.call("look for the image", self._image)
        if found is None or self._settings.pull == "always":
            found = await self._timed("pull the image", self._pull, _PULL_SECONDS)
        if found["Config"].get("Volumes"):
            raise SetupError(
                f"the image {self._settings.image} declares volumes "
                f"({', '.join(found['Config']['Volumes'])}), which a program could fill without "
                "limit: name an image without them"
            )
        await self.sweep()

    async def start(self, shape: Shape) -> Container:
        """A new container with a guest that answers."""
        return await self.call("start a container", lambda client: self._start(client, shape))

    async def remove(self, container: Container) -> None:
        """End a container, at once and whatever runs in it."""
        container.link.close()
        await self.call("remove a container", lambda client: _remove(client, container.id))

    async def sweep(self, *, own: bool = False) -> None:
        """Remove the containers of owners on this machine that no longer live, or also its `own`.

        Its own may be among them that nobody knows of: the daemon answered too late.
        """

        def work(client: APIClient) -> None:
            for one in client.containers(all=True, filters={"label": LABEL}):
                label = one["Labels"][LABEL]
                if is_orphan(label) or (own and label == self._label):
                    _remove(client, one["Id"])

        await self.call("remove orphans", work)

    async def ran_out_of_memory(self, container: Container, *, seconds: float) -> bool:
        """Whether the daemon saw the container run out of memory in the last `seconds`."""
        now = time.time()
        wanted = {"container": container.id, "event": "oom"}

        def work(client: APIClient) -> bool:
            since, until = int(now - seconds) - 1, int(now) + 1
            return any(client.events(since=since, until=until, filters=wanted, decode=True))

        return await self.call("ask for events", work)

    async def call(self, what: str, function: Callable[[APIClient], T]) -> T:
        """The result of `function`, in a thread.

        Raises:
            EnvError: the daemon refused, is gone or does not answer.
        """
        client = self._client
        if client is None:
            raise EnvError(f"Docker: {what}: not connected")
        return await self._timed(what, lambda: function(client), self._settings.daemon_seconds)

    async def _timed(self, what: str, function: Callable[[], T], seconds: float) -> T:
        # The SDK's errors are of two packages; both are imported where the client is made.
        try:
            return await asyncio.wait_for(in_thread(function), seconds + 1.0)
        except (SetupError, EnvError):
            raise
        except (TimeoutError, LinkError) as error:
            said = str(error) or "no answer in time"
            raise EnvError(f"Docker at {self.address}: {what}: {said}") from error
        except Exception as error:
            raise EnvError(
                f"Docker at {self.address}: {what}: {type(error).__name__}: {error}"
            ) from error

    def _connect(self) -> APIClient:
        try:
            import docker
            import requests
        except ImportError as error:
            raise SetupError(
                'the Docker sandbox needs the package docker: pip install "agentrl[docker]"'
            ) from error
        settings = self._settings
        where = {"base_url": settings.host} if settings.host else docker.utils.kwargs_from_env()
        try:
            return docker.APIClient(version="auto", timeout=settings.daemon_seconds, **where)
        except docker.errors.DockerException as error:
            cause = error.__context__
            if isinstance(cause, requests.exceptions.Timeout):
                raise EnvError(f"Docker at {self.address} does not answer") from error
            raise SetupError(
                f"no Docker daemon can be used at {self.address} ({error}). Start it (sudo "
                "systemctl start docker, or sudo dockerd) and let this user use it (sudo usermod "
                "-aG docker $USER); or use the sandbox {type: bubblewrap}"
            ) from error

    def _image(self, client: APIClient) -> Mapping[str, Any] | None:
        import docker

        try:
            found: Mapping[str, Any] = client.inspect_image(self._settings.image)
        except docker.errors.ImageNotFound as error:
            if self._settings.pull == "never":
                name = self._settings.image
                raise SetupError(
                    f"the Docker image {name} is not there, and pull is 'never': docker pull {name}"
                ) from error
            return None
        return found

    def _pull(self) -> Mapping[str, Any]:
        import docker

        assert self._client is not None
        name = self._settings.image
        repository, tag = docker.utils.parse_repository_tag(name)
        try:
            self._client.pull(repository, tag=tag or "latest")
            found: Mapping[str, Any] = self._client.inspect_image(name)
        except docker.errors.APIError as error:
            raise SetupError(
                f"the Docker image {name} could not be pulled ({error.explanation or error}). Get "
                f"it (docker pull {name}), or name one of `docker images` that has Python"
            ) from error
        return found

    def _start(self, client: APIClient, shape: Shape) -> Container:
        import docker

        deadline = time.monotonic() + self._settings.daemon_seconds
        id_ = client.create_container(**self._configuration(client, shape))["Id"]
        link: Link | None = None
        try:
            streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            link = Link(client.attach_socket(id_, params=streams))
            client.start(id_)
            link.send(_program(), seconds=self._settings.daemon_seconds)
            self._greet(link, deadline)
        except BaseException as error:
            if link is not None:
                link.close()
            _remove(client, id_)
            if isinstance(error, docker.errors.APIError) and "executable file" in str(error):
                raise SetupError(
                    f"the Docker image {self._settings.image} has no python3: name one that has "
                    "Python 3.9 or newer with its whole standard library"
                ) from error
            raise
        return Container(id_, link, shape)

    def _configuration(self, client: APIClient, shape: Shape) -> dict[str, Any]:
        """What a container is made of, for `create_container`."""
        import docker

        # What is written lies in memory: a full disk must not take a program's memory away.
        memory = (shape.memory_mb + shape.disk_mb + SHM_MB + _GUEST_MB) << 20
        files = max(1024, 64 * shape.disk_mb)
        tmpfs = f"rw,exec,nosuid,nodev,mode=1777,size={shape.disk_mb}m,nr_inodes={files}"
        host = client.create_host_config(
            auto_remove=True,
            cap_drop=["ALL"],
            ipc_mode="private",
            log_config=docker.types.LogConfig(type="none"),
            mem_limit=memory,
            memswap_limit=memory,
            nano_cpus=int(self._settings.cpus * 1e9),
            network_mode="none",
            # Where the whole machine runs out of memory, containers go first.
            oom_score_adj=500,
            # The guest and an interpreter that waits are not the program's.
            pids_limit=shape.processes + 2,
            read_only=True,
            security_opt=["no-new-privileges:true"],
            shm_size=SHM_MB << 20,
            tmpfs={"/tmp": tmpfs},
            ulimits=[docker.types.Ulimit(name="core", soft=0, hard=0)],
        )
        return {
            "image": self._settings.image,
            "entrypoint": ["python3"],
            "command": ["-c", _BOOT],
            "environment": {"PYTHONDONTWRITEBYTECODE": "1"},
            "healthcheck": {"test": ["NONE"]},
            "host_config": host,
            "hostname": "sandbox",
            "labels": {LABEL: self._label},
            "stdin_open": True,
            "user": _NOBODY,
            "working_dir": "/",
        }

    def _greet(self, link: Link, deadline: float) -> None:
        """The guest says that it is the first process and everything is clean."""
        try:
            greeting = link.receive(deadline).header
        except LinkError as error:
            if not link.complaint:
                raise
            raise SetupError(
                f"the Docker image {self._settings.image} cannot run the sandbox's program, which "
                "needs Python 3.9 or newer with its whole standard library: " + link.complaint
            ) from error
        if not (greeting.get("clean") and greeting.get("first")):
            raise LinkError(f"a new container is not as it should be: {dict(greeting)}")


@functools.cache
def _program() -> bytes:
    """The guest and the interpreter, as `_BOOT` reads them."""
    package = resources.files("agentrl.sandbox")
    texts = {name: (package / f"{name}.py").read_text() for name in (*_MODULES, _INTERPRETER)}
    modules = [(f"agentrl.sandbox.{name}", texts[name]) for name in _MODULES]
    return json.dumps([*modules, texts[_INTERPRETER]]).encode() + b"\n"


def owner() -> str:
    """The running process, told apart from every other one of this machine, now and later."""
    pid = os.getpid()
    return f"{_boot()} {_namespace()} {pid} {_started(pid)}"


def is_orphan(label: str) -> bool:
    """Whether the owner is one that could be seen from here, and is not there."""
    try:
        boot, namespace, pid, started, _ = label.split(" ")
    except ValueError:
        # Not a label of ours, or not of this version.
        return False
    return (boot, namespace) == (_boot(), _namespace()) and _started(int(pid)) != started


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node() or "?"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "?"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; "?" if it runs and cannot say, "" if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "?"
    return "?"


def _remove(client: APIClient, id_: str) -> None:
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        try:
            client.remove_container(id_, force=True, v=True)
        except docker.errors.APIError as error:
            # 409: the daemon removes it already.
            if error.status_code != 409:
                raise

"""What is different on another node of a Ray cluster: its files, its folder and its weights."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentrl.core.errors import AgentRLError, EngineError, SetupError
from agentrl.workers.fleet import MemberLostError

CHUNK_BYTES = 256 * 2**20
"""What travels as one object; the object stores hold `_CHUNKS_AT_ONCE` of them at a time."""

_CHUNKS_AT_ONCE = 4
_MARKER_SECONDS = 10.0
"""How long a shared file system may take to show a new file on other machines."""

_CLOSE_SECONDS = 10.0


def this_node() -> str:
    """Id of the node that this process runs on."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


def node_name(node: str) -> str:
    """Address and id of `node`, for messages."""
    for entry in ray.nodes():
        if entry["NodeID"] == node:
            return f"{entry['NodeManagerAddress']} ({node[:8]})"
    return node[:8]


def enter(folder: str) -> None:
    """Make the driver's working folder this process's own: relative paths then mean the same."""
    if os.path.isdir(folder):
        os.chdir(folder)


def require_policy(model: str) -> None:
    """Raise `SetupError` where the policy is a folder that this machine does not have."""
    if os.path.isabs(model) and not os.path.isdir(model):
        raise SetupError(
            f"the policy's folder {model} is not on node {node_name(this_node())}. Put it on a "
            "file system that all nodes share (--out, too, where the run makes the policy), or "
            "set policy.model to a hub id"
        )


def require_shared(folder: Path, nodes: Iterable[str]) -> None:
    """Raise `SetupError` unless every one of `nodes` sees what this process writes to `folder`."""
    others = sorted(set(nodes) - {this_node()})
    if not others:
        return
    folder = folder.absolute()
    marker = folder / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        calls = [_on(node, _appears, str(marker)) for node in others]
        blind = [node for node, seen in zip(others, ray.get(calls), strict=True) if not seen]
    finally:
        marker.unlink()
    if blind:
        raise SetupError(
            f"the learner runs on {', '.join(map(node_name, blind))} and does not see {folder}, "
            f"which {node_name(this_node())} writes: its part of every checkpoint would be lost. "
            "Name a folder on a file system that the nodes share with --out"
        )


class Courier:
    """Brings the file of weights to the nodes of the rollout members, once to each.

    On the node where the learner wrote it the file is loaded as it is. To the others
    it goes through Ray's object store in chunks, all nodes at a time, and lies in their own shared
    memory. Call it from one event loop, and not while the learner writes the file.
    """

    def __init__(self) -> None:
        self._source = ""
        self._nodes: set[str] = set()
        self._held: dict[str, tuple[Path, int]] = {}
        self._folders: set[Path] = set()
        self._busy = asyncio.Lock()

    def start_from(self, source: str) -> None:
        """A learner writes on node `source` from now on; what another wrote is worth nothing."""
        self._source = source
        self.renewed()

    def renewed(self) -> None:
        """The learner wrote the file anew, perhaps as a version that it wrote before."""
        self._held.clear()

    def register(self, node: str) -> None:
        """A member runs on `node`: the weights will be wanted there."""
        self._nodes.add(node)

    async def bring(self, weights: Path, version: int, node: str) -> Path:
        """Where `node` finds version `version` of the file that the learner wrote as `weights`."""
        self._folders.add(weights.parent)
        if node == self._source:
            return weights
        wanted = (weights, version)
        async with self._busy:
            if self._held.get(node) != wanted:
                missing = {n for n in self._nodes if self._held.get(n) != wanted} - {self._source}
                outcome = await self._carry(weights, sorted(missing | {node}))
                self._held |= {n: wanted for n, error in outcome.items() if error is None}
                # Whoever is on a node that failed asks again, and is told why.
                self._nodes -= {n for n, error in outcome.items() if error is not None}
                if (error := outcome[node]) is not None:
                    raise self._failure(error, node) from error
        return _copy_of(weights, node)

    async def _carry(self, weights: Path, nodes: list[str]) -> dict[str, Exception | None]:
        """Copy the file to all `nodes`; what went wrong, by node."""
        failed: dict[str, Exception | None] = dict.fromkeys(nodes)
        gate = asyncio.Semaphore(_CHUNKS_AT_ONCE)

        async def put(node: str, start: int, size: int, chunk: object) -> None:
            try:
                await _on(node, _write, str(_copy_of(weights, node)), start, size, chunk)
            except (RayError, OSError) as error:
                failed[node] = failed[node] or error

        async def chunk(start: int, size: int) -> None:
            async with gate:
                found = _on(self._source, _read, str(weights), start, CHUNK_BYTES)
                await asyncio.gather(
                    *(put(node, start, size, found) for node in nodes if failed[node] is None)
                )

        try:
            size = await _on(self._source, os.path.getsize, str(weights))
        except (RayError, OSError) as error:
            return dict.fromkeys(nodes, error)
        await asyncio.gather(*(chunk(start, size) for start in range(0, size, CHUNK_BYTES)))
        return failed

    def _failure(self, error: Exception, node: str) -> AgentRLError:
        text = str(error.cause if isinstance(error, RayTaskError) else error).splitlines()[0]
        message = (
            f"the weights did not travel from node {node_name(self._source)} to "
            f"{node_name(node)}: {text}"
        )
        alive = {entry["NodeID"] for entry in ray.nodes() if entry["Alive"]}
        if self._source not in alive:
            from agentrl.workers.learner import LearnerLostError

            return LearnerLostError(message)
        if node not in alive:
            return MemberLostError(message)
        return EngineError(f"{message}. They need room for one copy in that node's shared memory")

    def close(self) -> None:
        """Delete the files on all nodes; one that is gone has lost its own already."""
        nodes = {self._source, *self._held} - {"", this_node()}
        calls = [_on(node, _remove, str(folder)) for node in nodes for folder in self._folders]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=_CLOSE_SECONDS)
        self._held.clear()
        self._folders.clear()


def _copy_of(weights: Path, node: str) -> Path:
    # Nodes may be simulated on one machine, or share its memory: the name tells them apart.
    return weights.with_name(f"{weights.stem}-{node[:16]}{weights.suffix}")


def _on(node: str, function: Callable[..., object], *arguments: object) -> ray.ObjectRef:
    """Call `function` on `node`, or fail where the node is gone."""
    task = ray.remote(function).options(
        num_cpus=0,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    return task.remote(*arguments)


def _read(path: str, start: int, count: int) -> NDArray[np.uint8]:
    return np.fromfile(path, np.uint8, count=count, offset=start)


def _write(path: str, start: int, size: int, chunk: NDArray[np.uint8]) -> None:
    """Put `chunk` at `start` of the file, which has `size` bytes in the end."""
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(handle, size)
        os.lseek(handle, start, os.SEEK_SET)
        rest = chunk.data
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)


def _appears(path: str) -> bool:
    deadline = time.monotonic() + _MARKER_SECONDS
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)

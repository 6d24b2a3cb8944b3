"""A run's place on a Ray cluster: joining it, the GPUs of the ranks, the way of the weights."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from agentrl.core.errors import SetupError
from agentrl.engine.settings import VllmSettings
from agentrl.recipe.schema import Recipe
from agentrl.rollout.host import HostSpec
from agentrl.workers.learner import LearnerGroup
from agentrl.workers.nodes import Courier, require_shared
from agentrl.workers.placement import gpus_per_rank, require_gpus, reserve
from agentrl.workers.ray_members import RayMember

if TYPE_CHECKING:
    from agentrl.learner.loss import Objective

_REACH_SECONDS = 5.0


def connect(address: str | None) -> None:
    """Join the Ray cluster at `address` (`"auto"`: the one of this machine), or start one here.

    Raises:
        SetupError: no cluster answers there, or this machine is no node of it.
    """
    if ray.is_initialized():
        return
    # Workers inherit it: Ray would otherwise print a line for each actor and each warning.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        _require_reachable(address)
    options = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(
            # Without "local" Ray would join whatever cluster was last started on this machine.
            address=address or "local",
            logging_level="ERROR",
            log_to_driver=bool(os.environ.get("AGENTRL_WORKER_LOGS")),
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        raise _no_cluster(address, error) from error


def _require_reachable(address: str) -> None:
    """Raise `SetupError` where nothing listens: Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in host or not host or not port.isdigit():
        raise SetupError(
            f"cluster: {address!r} is no address of a Ray cluster. Use `auto` on a machine of the "
            "cluster, or host:port of its head (port 6379 unless it was started with another)"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> SetupError:
    return SetupError(
        f"no Ray cluster answers at {address!r} ({error}). Start one with `ray start --head`, join "
        "this machine to it with `ray start --address=HEAD:6379`, or leave `cluster` out to run "
        "on this machine alone. A cluster that wants a token needs RAY_AUTH_MODE=token and the "
        "head's ~/.ray/auth_token here"
    )


class Cluster:
    """What one run uses of a Ray cluster; joins or starts it.

    Raises:
        SetupError: no cluster answers, or it has too few GPUs for `recipe` (`ranks` of them for
            the learner).
    """

    def __init__(self, recipe: Recipe, *, ranks: int) -> None:
        connect(recipe.cluster)
        self._recipe = recipe
        self._courier = Courier()
        gpus = gpus_per_rank(recipe.learner.device)
        require_gpus(
            ranks=ranks,
            gpus_per_rank=gpus,
            workers=recipe.rollout.workers,
            gpus_per_worker=recipe.rollout.gpus_per_worker,
        )
        self._reserved = reserve(ranks) if ranks * gpus else None

    def member(self, index: int, spec: HostSpec) -> RayMember:
        """Rollout member number `index`."""
        engine = spec.engine
        return RayMember(
            spec,
            index=index,
            courier=self._courier,
            gpus=self._recipe.rollout.gpus_per_worker,
            environment=engine.environment() if isinstance(engine, VllmSettings) else {},
        )

    def learner(self, model: str, *, objective: Objective, out: Path) -> LearnerGroup:
        """The ranks, which write checkpoints into the existing folder `out` or below.

        Raises:
            SetupError: one of them does not see `out` or the folder `model`.
        """
        recipe = self._recipe
        group = LearnerGroup(
            recipe.learner,
            model,
            objective=objective,
            temperature=recipe.rollout.sampling.temperature,
            seed=recipe.seed,
            reserved=self._reserved,
        )
        try:
            require_shared(out, group.nodes)
        except BaseException:
            group.close()
            raise
        self._courier.start_from(group.nodes[0])
        return group

    def weights_written(self) -> None:
        """The file of weights is another: nodes that held the last one are brought it again."""
        self._courier.renewed()

    def close(self) -> None:
        """Give back the GPUs and delete the weights on all nodes; the run's actors have ended."""
        self._courier.close()
        if self._reserved is not None:
            ray.util.remove_placement_group(self._reserved)
            self._reserved = None

"""A learner of several ranks, each a Ray actor, with the interface of one."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from agentrl.core.errors import AgentRLError, LearnerError

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

    from agentrl.core.types import Float32, Int32
    from agentrl.learner.batch import Row
    from agentrl.learner.learner import Learner
    from agentrl.learner.loss import Objective
    from agentrl.learner.settings import LearnerSettings

_SETTLE_SECONDS = 5.0
"""How long the others may take to fail too, so that the first cause is among the reports."""

_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "LOCAL_RANK": "0"}
"""Environment of a process that shares its cores: idle OpenMP threads sleep instead of spinning."""


class LearnerLostError(LearnerError):
    """A rank's process is gone, and the group with it: a new one can go on from a checkpoint."""


class RankActor:
    """What runs inside a rank's process, which enters the driver's working `folder`."""

    def __init__(self, folder: str) -> None:
        from agentrl.workers.nodes import enter

        enter(folder)
        self._learner: Learner | None = None

    def node(self) -> str:
        """Id of the node that the rank runs on."""
        from agentrl.workers.nodes import this_node

        return this_node()

    def address(self) -> str:
        """A free `tcp://` address of this machine, for the ranks to meet at."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def start(
        self,
        settings: LearnerSettings,
        model: str,
        objective: Objective,
        temperature: float,
        seed: int,
        rank: int,
        address: str,
    ) -> int:
        """Load the model and meet the other ranks; returns the process id."""
        from agentrl.learner.learner import Learner
        from agentrl.workers.nodes import require_policy

        require_policy(model)
        self._learner = Learner(
            settings,
            model,
            objective=objective,
            temperature=temperature,
            seed=seed,
            rank=rank,
            address=address,
        )
        return os.getpid()

    def update(
        self, rows: Sequence[Row], denominator: float, kl: float | None, row_ids: Sequence[int]
    ) -> dict[str, float]:
        """See `Learner`."""
        return self._ready().update(rows, denominator, kl=kl, row_ids=row_ids)

    def logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner`."""
        return self._ready().logprobs(rows)

    def logit_norms(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner`."""
        return self._ready().logit_norms(rows)

    def values(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner`."""
        return self._ready().values(rows)

    def reference_logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner`."""
        return self._ready().reference_logprobs(rows)

    def forget(self, rows: Sequence[Row], rate: float) -> None:
        """See `Learner`."""
        self._ready().forget(rows, rate=rate)

    def recall(self) -> None:
        """See `Learner`."""
        self._ready().recall()

    def score(self, sequences: Sequence[Sequence[int] | Int32]) -> list[Float32]:
        """See `Learner`."""
        return self._ready().score(sequences)

    def export(self, path: Path) -> None:
        """See `Learner`."""
        self._ready().export(path)

    def publish(self, path: Path) -> None:
        """See `Learner`."""
        self._ready().publish(path)

    def save(self, folder: Path) -> None:
        """See `Learner`."""
        self._ready().save(folder)

    def load(self, folder: Path) -> None:
        """See `Learner`."""
        self._ready().load(folder)

    def _ready(self) -> Learner:
        assert self._learner is not None
        return self._learner


class LearnerGroup:
    """Ranks that train one policy together, each a Ray actor; the interface of one `Learner`.

    When a rank fails, all are ended and a `LearnerError` says which and why; when its process died
    it is a `LearnerLostError`: make a new group and `load` the last checkpoint.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        model: str | Path,
        *,
        objective: Objective = "policy",
        temperature: float = 1.0,
        seed: int = 0,
        reserved: PlacementGroup | None = None,
    ) -> None:
        """Start the ranks; a cluster must be connected.

        `reserved` holds a GPU for each (see `placement.reserve`). The rest is as for `Learner`.
        """
        import ray

        from agentrl.workers.placement import gpus_per_rank, strategy, threads_per_rank

        threads = settings.threads or threads_per_rank(settings.ranks, ray.nodes())
        gpus = gpus_per_rank(settings.device)
        environment = _QUIET_THREADS | {"OMP_NUM_THREADS": str(threads)}
        actor = ray.remote(RankActor)
        self.actors = [
            actor.options(
                num_cpus=0,
                num_gpus=gpus,
                scheduling_strategy=strategy(rank, gpus=gpus, group=reserved),
                runtime_env={"env_vars": environment},
            ).remote(os.getcwd())
            for rank in range(settings.ranks)
        ]
        self.nodes: list[str] = self._gather([actor.node.remote() for actor in self.actors])
        address = self._gather([self.actors[0].address.remote()])[0]
        shared = (settings.model_copy(update={"threads": threads}), str(model), objective)
        self.pids = self._gather(
            [
                actor.start.remote(*shared, temperature, seed, rank, address)
                for rank, actor in enumerate(self.actors)
            ]
        )

    def update(
        self, rows: Sequence[Row], denominator: float, *, kl: float | None = None
    ) -> dict[str, float]:
        """See `Learner.update`; the rows are dealt to the ranks, the heaviest first."""
        hands = deal_rows(rows, len(self._open()))
        reports: list[dict[str, float]] = self._gather(
            [
                actor.update.remote([rows[i] for i in hand], denominator, kl, hand)
                for actor, hand in zip(self.actors, hands, strict=True)
            ]
        )
        return reports[0] | {"train/seconds": max(each["train/seconds"] for each in reports)}

    def logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner.logprobs`, in the order of `rows`."""
        return self._dealt("logprobs", rows)

    def logit_norms(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner.logit_norms`, in the order of `rows`."""
        return self._dealt("logit_norms", rows)

    def values(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner.values`, in the order of `rows`."""
        return self._dealt("values", rows)

    def reference_logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """See `Learner.reference_logprobs`, in the order of `rows`."""
        return self._dealt("reference_logprobs", rows)

    def forget(self, rows: Sequence[Row], *, rate: float) -> None:
        """See `Learner.forget`."""
        hands = deal_rows(rows, len(self._open()))
        self._gather(
            [
                actor.forget.remote([rows[i] for i in hand], rate)
                for actor, hand in zip(self.actors, hands, strict=True)
            ]
        )

    def recall(self) -> None:
        """See `Learner.recall`."""
        self._all("recall")

    def _dealt(self, method: str, rows: Sequence[Row]) -> list[Float32]:
        """Columns of `rows`, each evaluated by one of the ranks."""
        hands = deal_rows(rows, len(self._open()))
        parts: list[list[Float32]] = self._gather(
            [
                getattr(actor, method).remote([rows[i] for i in hand])
                for actor, hand in zip(self.actors, hands, strict=True)
            ]
        )
        found = {
            index: column
            for hand, part in zip(hands, parts, strict=True)
            for index, column in zip(hand, part, strict=True)
        }
        return [found[index] for index in range(len(rows))]

    def score(self, sequences: Sequence[Sequence[int] | Int32]) -> list[Float32]:
        """See `Learner.score`."""
        scores: list[list[Float32]] = self._all("score", list(sequences))
        return scores[0]

    def export(self, path: Path) -> None:
        """See `Learner.export`; the file is written where rank 0 runs."""
        self._all("export", path)

    def publish(self, path: Path) -> None:
        """See `Learner.publish`; the file is written where rank 0 runs."""
        self._all("publish", path)

    def save(self, folder: Path) -> None:
        """See `Learner.save`; all ranks write into `folder`, which they must share."""
        self._all("save", folder)

    def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        self._all("load", folder)

    def close(self) -> None:
        """End all ranks; may be called twice."""
        import ray

        for actor in self.actors:
            ray.kill(actor)
        self.actors = []

    def _all(self, method: str, *arguments: object) -> list:  # type: ignore[type-arg]
        return self._gather([getattr(actor, method).remote(*arguments) for actor in self._open()])

    def _open(self) -> list:  # type: ignore[type-arg]
        """The ranks, while there are any."""
        if not self.actors:
            raise LearnerError("the learner is closed: a rank failed, or close() was called")
        return self.actors

    def _gather(self, calls: list) -> list:  # type: ignore[type-arg]
        """Results in order; at the first failure the group ends and the cause is raised."""
        import ray

        waiting = list(calls)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(ready)
            except (ray.exceptions.RayError, AgentRLError):
                self._fail(calls)
        results: list = ray.get(calls)  # type: ignore[type-arg]
        return results

    def _fail(self, calls: list) -> NoReturn:  # type: ignore[type-arg]
        """End the group and raise: a typed error of ours first, then a death, then the rest."""
        import ray

        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=_SETTLE_SECONDS)
        reports: list[tuple[int, str]] = []
        typed: AgentRLError | None = None
        for rank, call in enumerate(calls):
            if call not in ready:
                continue
            try:
                ray.get(call)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, AgentRLError):
                    typed = typed or error.cause
                reports.append((1, f"rank {rank}: {error.cause!r}"))
            except ray.exceptions.RayError as error:
                reports.append((0, f"rank {rank} died: {str(error).splitlines()[0]}"))
        self.close()
        if typed is not None:
            raise typed
        causes = "; ".join(text for _, text in sorted(reports))
        kind = LearnerLostError if min(reports)[0] == 0 else LearnerError
        raise kind(f"the learner stopped: {causes}. Start it anew from the last checkpoint")


def deal_rows(rows: Sequence[Row], ranks: int) -> list[list[int]]:
    """Indices of `rows` for each rank: the longest first, each to the rank with fewest tokens."""
    hands: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        rank = loads.index(min(loads))
        hands[rank].append(index)
        loads[rank] += len(rows[index])
    return hands

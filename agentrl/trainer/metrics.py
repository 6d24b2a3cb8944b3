"""Metrics of a run: one JSON line per iteration, TensorBoard files and, if asked for, W&B."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.core.errors import SetupError
from agentrl.evals.runs import read_metrics

__all__ = ["MetricsLog", "read_metrics"]


class MetricsLog:
    """Appends the metrics of each iteration.

    A resumed run drops the lines that it will write again, of iteration `start` and later.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: bool,
        wandb: str | None = None,
        name: str = "",
        start: int,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        self.dropped: list[dict[str, Any]] = []
        if self.path.exists():
            rows = read_metrics(self.path)
            kept = [row for row in rows if row["iteration"] < start]
            self.dropped = rows[len(kept) :]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
            temporary.replace(self.path)
        self._events = _tensorboard(folder / "tensorboard") if tensorboard else None
        self._wandb = _wandb(wandb, name, folder) if wandb else None

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` (names `room/quantity[_unit]`) of one iteration; all must be numbers."""
        values = {name: float(value) for name, value in metrics.items()}
        row: dict[str, float | None] = {"iteration": iteration, "time": time.time()}
        row |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._events is not None:
            _add_scalars(self._events, iteration, values)
        if self._wandb is not None:
            self._wandb.log(values, step=iteration)

    def close(self) -> None:
        """Flush everything."""
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def _tensorboard(folder: Path) -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise SetupError(
            'log.tensorboard needs TensorBoard: pip install "agentrl[cpu]" or set it to false'
        ) from error
    return EventFileWriter(str(folder))


def _add_scalars(writer: Any, step: int, values: Mapping[str, float]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])
    writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.flush()


def _wandb(project: str, name: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise SetupError('log.wandb needs W&B: pip install "agentrl[wandb]"') from error
    return wandb.init(project=project, name=name, dir=str(folder), resume="allow")

"""What the trainer needs of a learner, whether one process or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agentrl.core.types import Float32, Int32
from agentrl.learner.batch import Row


class PolicyLearner(Protocol):
    """Turns batches into new weights. All methods block; any failure is raised."""

    def update(
        self, rows: Sequence[Row], denominator: float, *, kl: float | None = None
    ) -> dict[str, float]:
        """One optimizer step over the global batch; returns `train/...` metrics.

        `kl` weighs the penalty against the reference in place of `learner.loss.kl`.
        """
        ...

    def logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """Log-probabilities (T,) of each row's trained tokens as `update` sees them, else 0.0."""
        ...

    def logit_norms(self, rows: Sequence[Row]) -> list[Float32]:
        """Squared norms (T,) of the gradients of `logprobs` to the logits, else 0.0."""
        ...

    def reference_logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """As `logprobs`, of the model as it was before any update."""
        ...

    def values(self, rows: Sequence[Row]) -> list[Float32]:
        """The critic's values (T,) of the states before each row's trained tokens, else 0.0."""
        ...

    def score(self, sequences: list[Int32]) -> list[Float32]:
        """Log-probabilities (T-1,) of each sequence at temperature 1."""
        ...

    def forget(self, rows: Sequence[Row], *, rate: float) -> None:
        """Move the weights a step away from the trained tokens of `rows`, until `recall`."""
        ...

    def recall(self) -> None:
        """Undo `forget`, bit for bit."""
        ...

    def export(self, path: Path) -> None:
        """Write the policy's weights as safetensors under hub names."""
        ...

    def publish(self, path: Path) -> None:
        """Overwrite `path` with the policy's weights, at the cost of one copy in memory."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights, optimizer, schedule and random states."""
        ...

    def load(self, folder: Path) -> None:
        """Continue exactly from what `save` wrote."""
        ...

    def close(self) -> None:
        """Free everything; may be called twice."""
        ...

"""What a state is worth: a linear head on hidden states, its loss, and a critic of its own.

N is the number of trained tokens. A token's value is read at the token that predicts it: it is that
of the state before the action token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from agentrl.core.errors import ContractError, LearnerError
from agentrl.learner.batch import Row
from agentrl.learner.optimized import Optimized

if TYPE_CHECKING:
    from agentrl.learner.batch import Layout
    from agentrl.learner.model import PackedPolicy
    from agentrl.learner.settings import CriticSettings, LearnerSettings

ValueTerms: TypeAlias = Callable[[Tensor], Tensor]
"""Values (N,) -> their losses (N,)."""

VALUE_SUMS = ("tokens", "loss", "clipped")
"""What `value_sums` adds up over tokens, in order; exact over micro-batches and ranks."""


class TaughtTokens(NamedTuple):
    """What is learned of the trained tokens of a row, each (N,): see `RowValues`."""

    weight: Tensor
    target: Tensor
    spread: Tensor
    old: Tensor

    @classmethod
    def of(cls, row: Row, row_id: int, device: torch.device) -> TaughtTokens:
        """Those of `row`. Raises `ContractError` where it has none, or a number is not finite."""
        trained = np.flatnonzero(row.weight)
        if row.values is None:
            if len(trained):
                raise ContractError(
                    f"row {row_id} says nothing of values and the learner has a critic: give its "
                    "rows their targets (`batch.with_values`)"
                )
            return cls(*(torch.zeros(0, device=device) for _ in cls._fields))
        columns = [column[trained] for column in row.values]
        if not np.isfinite(columns).all():
            raise ContractError(f"row {row_id}: a value's target is not finite: look at the credit")
        return cls(*(torch.from_numpy(column).to(device) for column in columns))


class ValueHead(nn.Module):
    """Values (N,) of hidden states (N, D), float32 or wider; before any training all are 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """The values: weight · hidden + bias."""
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        values = nn.functional.linear(hidden.to(dtype), self.weight.to(dtype), self.bias.to(dtype))
        return values[:, 0]


class PackedCritic(nn.Module):
    """A decoder without its output projection, and a value head; reads packed rows."""

    def __init__(self, policy: PackedPolicy) -> None:
        """Take the decoder of `policy`, which is of no further use."""
        super().__init__()
        self.trunk = policy.backbone
        self.head = ValueHead(policy.width)

    def forward(
        self, token_ids: Tensor, positions: Tensor, previous: Tensor, *, layout: Layout
    ) -> Tensor:
        """Values (N,) read at the indices `previous` (N,) of a row (T,)."""
        hidden = self.trunk(
            input_ids=token_ids[None],
            position_ids=positions[None],
            use_cache=False,
            layout=layout,
        ).last_hidden_state[0]
        values: Tensor = self.head(hidden[previous])
        return values


def value_terms(values: Tensor, tokens: TaughtTokens, clip: float | None) -> Tensor:
    """Each token's squared errors (N,) over its trajectories, before the batch's denominator.

        1/2 max(W (V - R)^2, W (clip(V, V_old - c, V_old + c) - R)^2) + 1/2 spread

    Without a clip that is exactly sum_i 1/2 w_i (V - R_i)^2 over the trajectories i through the
    token. With one the maximum is of the sums: on a token of one trajectory PPO's own (baselines,
    verl), on a shared one a single bound around the mean target, where copies of the token would
    each have theirs and no fixed number of sums could say so.
    """
    errors = (values - tokens.target).square()
    if clip is not None:
        bounded = values.clamp(tokens.old - clip, tokens.old + clip)
        errors = torch.maximum(errors, (bounded - tokens.target).square())
    return (tokens.weight * errors + tokens.spread) / 2


def shared_terms(tokens: TaughtTokens, settings: CriticSettings, update: int) -> ValueTerms:
    """The value loss of a row beside the policy's, on one trunk.

    It raises `LearnerError` where a value is not finite.
    """

    def terms(values: Tensor) -> Tensor:
        check_values(values, update)
        return settings.weight * value_terms(values, tokens, settings.value_clip)

    return terms


@torch.no_grad()
def value_sums(values: Tensor, tokens: TaughtTokens, clip: float | None) -> Tensor:
    """`VALUE_SUMS` over the tokens that teach, float64 on the CPU.

    A token counts as clipped where the bound stops its gradient.
    """
    taught = tokens.weight > 0
    clipped = torch.zeros_like(taught)
    if clip is not None:
        bounded = values.clamp(tokens.old - clip, tokens.old + clip)
        nearer = (values - tokens.target).abs() < (bounded - tokens.target).abs()
        clipped = taught & nearer
    columns = (taught, value_terms(values, tokens, clip), clipped)
    return torch.stack([column.to("cpu", torch.float64).sum() for column in columns])


def value_metrics(
    sums: Sequence[float], denominator: float, settings: CriticSettings
) -> dict[str, float]:
    """What a run logs of the value loss, over the global batch."""
    total = dict(zip(VALUE_SUMS, sums, strict=True))
    found = {"train/value_loss": total["loss"] / denominator}
    if settings.value_clip is not None and total["tokens"]:
        found["train/value_clip_fraction"] = total["clipped"] / total["tokens"]
    return found


def check_values(values: Tensor, update: int) -> None:
    """Raise `LearnerError` where a value is not finite."""
    if not bool(torch.isfinite(values).all()):
        raise LearnerError(
            f"a value of the critic is not finite in update {update}. Its weights have diverged: "
            "lower learner.critic.learning_rate and resume from a checkpoint"
        )


class Critic:
    """A critic with a trunk of its own, trained beside the policy by a learner's rank.

    Calls are collective, as the learner's. It is sharded, stored and resumed as the policy is.
    """

    def __init__(self, policy: PackedPolicy, settings: LearnerSettings, device: torch.device):
        """Make one of the decoder of `policy`, a copy of the policy with the same adapters."""
        assert settings.critic is not None
        self.settings = settings.critic
        self._optimizer = settings.critic.optimizer(settings.optimizer)
        self._engine = Optimized(
            PackedCritic(policy).to(device), settings, name="the critic's gradient"
        )

    def values(self, inputs: Sequence[Tensor], layout: Layout) -> Tensor:
        """Values (N,) of the trained tokens of a row, given the learner's inputs of it."""
        with torch.no_grad():
            return self._forward(inputs, layout)

    def backward(
        self,
        inputs: Sequence[Tensor],
        layout: Layout,
        tokens: TaughtTokens,
        *,
        scale: float,
        update: int,
    ) -> Tensor:
        """Add the gradient of scale · loss of a row; returns its `VALUE_SUMS`."""
        values = self._forward(inputs, layout)
        check_values(values, update)
        loss = scale * value_terms(values, tokens, self.settings.value_clip).sum()
        self._engine.backward(loss)
        return value_sums(values, tokens, self.settings.value_clip)

    def step(self, update: int) -> dict[str, float]:
        """One optimizer step; returns metrics."""
        rate = self._optimizer.rate(update)
        norm = self._engine.step(rate, update=update)
        return {"train/value_gradient_norm": norm, "train/value_learning_rate": rate}

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into `folder`."""
        self._engine.save(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises `CheckpointError`."""
        self._engine.load(folder)

    def close(self) -> None:
        """Free everything."""
        self._engine.close()

    def _forward(self, inputs: Sequence[Tensor], layout: Layout) -> Tensor:
        token_ids, positions, _, previous = inputs
        values: Tensor = self._engine(token_ids, positions, previous, layout=layout)
        return values

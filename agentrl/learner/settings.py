"""What a recipe says about the loss, the optimizer and the learner's ranks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agentrl.core.settings import Settings


class LossSettings(Settings):
    """PPO-clip on the token ratio to the behaviour policy (arXiv:1707.06347, eq. 7).

    `clip_low` and `clip_high` bound the ratio to [1 - clip_low, 1 + clip_high] (clip-higher:
    DAPO, arXiv:2503.14476). `dual_clip` c caps what a token of negative advantage can cost at
    c·|A| (arXiv:1912.09729). `aggregation` is the divisor over the global batch: its trained
    tokens, its trajectories (each the mean over its tokens) or `constant` tokens a trajectory
    (Dr.GRPO, arXiv:2503.20783). `kl` weighs a penalty against the reference; at 0.0 there is
    none in memory. `kl_estimator`: k2 and k3+ have the gradient of KL(policy ‖ reference), k3
    (GRPO's) that of KL(reference ‖ policy). `entropy` weighs a bonus.
    """

    clip_low: float = Field(default=0.2, gt=0.0, le=1.0)
    clip_high: float = Field(default=0.28, gt=0.0)
    dual_clip: float | None = None
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    constant: float | None = Field(default=None, gt=0.0)
    kl: float = Field(default=0.0, ge=0.0)
    kl_estimator: Literal["k2", "k3", "k3+"] = "k3+"
    entropy: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _check(self) -> LossSettings:
        if self.dual_clip is not None and self.dual_clip <= 1.0 + self.clip_high:
            raise ValueError(
                f"dual_clip must be above 1 + clip_high = {1.0 + self.clip_high:g}, got "
                f"{self.dual_clip:g}: a lower cap would stop what the ordinary clip still trains"
            )
        if self.aggregation == "constant" and self.constant is None:
            raise ValueError(
                "aggregation 'constant' needs `constant`, the tokens that a trajectory is "
                "divided by (the limit on its length, say)"
            )
        if self.aggregation != "constant" and self.constant is not None:
            raise ValueError(
                f"`constant` is read only with aggregation 'constant', not {self.aggregation!r}"
            )
        return self


class OptimizerSettings(Settings):
    """AdamW with a linear warm-up over `warmup_steps` updates, constant afterwards.

    `grad_clip` bounds the global norm of the gradient; 0.0 turns it off.
    """

    learning_rate: float = Field(default=1.0e-6, gt=0.0)
    warmup_steps: int = Field(default=10, ge=0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1.0e-8, gt=0.0)
    grad_clip: float = Field(default=1.0, ge=0.0)

    @model_validator(mode="after")
    def _check(self) -> OptimizerSettings:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        return self

    def rate(self, update: int) -> float:
        """Learning rate of the update with this 0-based number."""
        return self.learning_rate * min(1.0, (update + 1) / max(1, self.warmup_steps))


class LoraSettings(Settings):
    """Low-rank adapters on the decoder's linear layers (arXiv:2106.09685); the rest is frozen.

    `targets` are names of linear modules; None means all but the output projection.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0.0)
    targets: tuple[str, ...] | None = None


class LearnerSettings(Settings):
    """How the policy is trained: loss, optimizer, ranks and memory.

    A row of `pack_tokens` tokens is one micro-batch. `ranks` train together, each a Ray actor when
    there are several; `zero_stage` says what DeepSpeed shards over them: 0 nothing, 1 the
    optimizer's state, 2 also gradients, 3 also weights. `threads` bounds the CPU threads of a rank.
    """

    ranks: int = Field(default=1, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 0
    pack_tokens: int = Field(default=4096, ge=1)
    gradient_checkpointing: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(default=None, ge=1)
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    lora: LoraSettings | None = None

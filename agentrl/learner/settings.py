"""What a recipe says about the loss, the optimizer and the learner's ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agentrl.core.settings import Settings
from agentrl.learner.correction import AnyCorrection
from agentrl.learner.entropy_control import (
    AdaptiveEntropy,
    AnyEntropyControl,
    ClipCov,
    EntropyAware,
    KlCov,
    TopEntropy,
)
from agentrl.learner.kl_reward import KlInReward
from agentrl.learner.loss_settings import AnyLoss, PpoLoss


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


class CriticSettings(Settings):
    """What says how much a state is worth, for credit that asks (`gae`, `turn_gae`, `bilevel_gae`).

    `trunk` "own" is a copy of the policy's decoder with a linear head and an AdamW of its own: as
    much memory as the policy once more, and nothing of it touches the policy. "shared" is a linear
    head on the policy's hidden states, trained in the policy's own pass: its loss is added to the
    policy's with weight `coefficient` (None: 0.1, as TRL has it). `learning_rate` is that of all
    that is not the policy's; `learner.optimizer` says the rest. In the first `warmup_updates`
    updates a critic of its own learns while the policy stays.

    The loss is 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) with c = `value_clip`
    (verl and OpenRLHF 0.5, TRL 0.2), aggregated as the policy's; None, without the second term.
    """

    trunk: Literal["own", "shared"] = "own"
    learning_rate: float = Field(default=1.0e-5, gt=0.0)
    value_clip: float | None = Field(default=None, gt=0.0)
    coefficient: float | None = Field(default=None, gt=0.0)
    warmup_updates: int = Field(default=0, ge=0)

    @property
    def weight(self) -> float:
        """What the value loss is multiplied by in a shared trunk."""
        return 0.1 if self.coefficient is None else self.coefficient

    def optimizer(self, policy: OptimizerSettings) -> OptimizerSettings:
        """The critic's, given the policy's: as that but for the learning rate."""
        return policy.model_copy(update={"learning_rate": self.learning_rate})

    @model_validator(mode="after")
    def _check(self) -> CriticSettings:
        if self.trunk == "own" and self.coefficient is not None:
            raise ValueError(
                "`coefficient` weighs the value loss beside the policy's in a shared trunk; a "
                "critic of its own has a `learning_rate` instead"
            )
        if self.trunk == "shared" and self.warmup_updates:
            raise ValueError(
                "`warmup_updates` train the critic while the policy stays, which a shared trunk "
                "cannot; use trunk 'own', or leave them out"
            )
        return self


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
    loss: AnyLoss = PpoLoss()
    kl_in_reward: KlInReward | None = None
    correction: AnyCorrection | None = Field(default=None, discriminator="type")
    entropy_control: AnyEntropyControl | None = Field(default=None, discriminator="type")
    optimizer: OptimizerSettings = OptimizerSettings()
    lora: LoraSettings | None = None
    critic: CriticSettings | None = None

    @model_validator(mode="after")
    def _check_entropy(self) -> LearnerSettings:
        control, loss = self.entropy_control, self.loss
        if isinstance(control, AdaptiveEntropy) and loss.entropy == 0.0:
            raise ValueError(
                "entropy_control 'adaptive' moves the entropy bonus from where it starts, and "
                "loss.entropy is 0.0: set it above 0, to 0.005 say"
            )
        if isinstance(control, ClipCov | KlCov) and (loss.type != "ppo" or loss.two_pass):
            raise ValueError(
                f"entropy_control {control.type!r} takes the place of PPO's clip on single tokens; "
                "use loss type 'ppo' with level 'token', or 'aware' or 'top'"
            )
        one_element = loss.one_advantage and loss.type != "vespo"
        if isinstance(control, EntropyAware | TopEntropy) and one_element:
            raise ValueError(
                f"entropy_control {control.type!r} tells a trajectory's tokens apart, and loss "
                f"{loss.type!r} has here one element for all of them; use loss type 'ppo' with "
                "level 'token', 'turn' or 'sequence_token'"
            )
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether anything asks for the reference's log-probabilities."""
        in_reward = self.kl_in_reward is not None and self.kl_in_reward.beta > 0
        return self.loss.kl > 0 or in_reward

    @field_validator("loss", mode="before")
    @classmethod
    def _clip_by_default(cls, loss: Any) -> Any:
        """A loss without a type is PPO's: most recipes set a bound of it and nothing else."""
        return {"type": "ppo", **loss} if isinstance(loss, Mapping) else loss

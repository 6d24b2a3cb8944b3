"""A module under DeepSpeed: gradients add up over micro-batches and ranks until a step."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from agentrl.core.errors import CheckpointError, LearnerError

if TYPE_CHECKING:
    from agentrl.learner.settings import LearnerSettings

_TAG = "learner"
_NO_CLIP = 1.0e30
"""DeepSpeed reports the gradient's norm only where it clips."""


class _Engine(Protocol):
    """What we use of `deepspeed.DeepSpeedEngine`, which has no types of its own."""

    optimizer: torch.optim.Optimizer

    def __call__(self, *inputs: Tensor, **options: object) -> Any: ...

    def backward(self, loss: Tensor) -> Tensor: ...

    def step(self) -> None: ...

    def get_global_grad_norm(self) -> float | None: ...

    def save_checkpoint(self, save_dir: str, *, tag: str, save_latest: bool) -> bool: ...

    def destroy(self) -> None: ...

    def load_checkpoint(self, load_dir: str, *, tag: str) -> tuple[str | None, object]: ...


class Optimized:
    """`module` with an AdamW of its own, sharded as the learner's settings say."""

    def __init__(
        self,
        module: nn.Module,
        settings: LearnerSettings,
        *,
        apart: nn.Module | None = None,
        name: str = "the gradient",
    ) -> None:
        """Put `module` under DeepSpeed; the process must have met the other ranks.

        The parameters of `apart`, a part of `module`, have a learning rate of their own. `name`
        is what errors call the gradient.
        """
        self.name = name
        # Without ZeRO's own optimizer DeepSpeed clips in silence; the norm is wanted too.
        self._plain = settings.zero_stage == 0 and settings.dtype == "float32"
        self._norm = torch.zeros(())
        optimizer = settings.optimizer
        clip = optimizer.grad_clip or _NO_CLIP
        own = set(apart.parameters()) if apart is not None else set()
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [[p for p in parameters if p not in own], [p for p in parameters if p in own]]
        adam = torch.optim.AdamW(
            [{"params": group} for group in groups if group],
            lr=optimizer.rate(0),
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        )
        if self._plain:
            adam.register_step_pre_hook(lambda *_: self._clip(parameters, clip))
        self._engine = _start(module, adam, settings, 0.0 if self._plain else clip)

    def __call__(self, *inputs: Tensor, **options: object) -> Any:
        """The module's forward."""
        return self._engine(*inputs, **options)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`; it is averaged over ranks."""
        self._engine.backward(loss)

    def step(self, *rates: float, update: int) -> float:
        """One optimizer step at these learning rates (the module's, then that of `apart`).

        Returns the gradient's norm before clipping. Raises `LearnerError` where it is not finite.
        """
        for group, rate in zip(self._engine.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._engine.step()
        norm = float(self._norm if self._plain else self._engine.get_global_grad_norm() or 0.0)
        if not np.isfinite(norm) or norm < 0:  # DeepSpeed says -1 for what is not finite
            raise LearnerError(
                f"{self.name}'s norm is {norm} in update {update}. The weights have diverged: "
                "lower learning_rate or grad_clip and resume from a checkpoint"
            )
        return norm

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into `folder`."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises `CheckpointError` where it is missing or damaged."""
        try:
            found, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        except (OSError, RuntimeError, EOFError, KeyError, AssertionError) as error:
            raise CheckpointError(f"{folder}: the learner's state is damaged: {error}") from error
        if found is None:
            raise CheckpointError(f"{folder}: the learner's weights are missing")

    def close(self) -> None:
        """Free hooks and buffers; nothing may follow."""
        self._engine.destroy()

    def _clip(self, parameters: list[nn.Parameter], bound: float) -> None:
        self._norm = torch.nn.utils.clip_grad_norm_(parameters, bound)


def _start(
    module: nn.Module, adam: torch.optim.Optimizer, settings: LearnerSettings, clip: float
) -> _Engine:
    """A DeepSpeed engine around `module`; `step` alone ends an accumulation."""
    import deepspeed

    deepspeed.utils.logger.setLevel("ERROR")
    # DeepSpeed calls by their old names what torch has renamed, once a line of its own.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)
    # Gloo does its work; compiling it at the first start takes a compiler and half a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=adam,
        model_parameters=[p for p in module.parameters() if p.requires_grad],
        dist_init_required=False,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,
            "gradient_clipping": clip,
            "zero_optimization": {"stage": settings.zero_stage, "overlap_comm": False},
            "bf16": {"enabled": settings.dtype == "bfloat16"},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**12,
        },
    )
    started: _Engine = engine
    return started

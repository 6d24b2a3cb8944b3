"""How much a penalty for leaving the reference weighs: constant, or moved towards a target."""

from __future__ import annotations


class KlController:
    """The weight `beta` of a KL penalty, in the reward or in the loss, and its next value."""

    def __init__(self, beta: float, *, target: float | None, horizon: int) -> None:
        """Start at `beta`; a `target` of None keeps it."""
        self.beta = beta
        self._target = target
        self._horizon = horizon

    @property
    def moves(self) -> bool:
        """Whether anything can change `beta`."""
        return self._target is not None

    def after(self, kl: float, trajectories: int) -> None:
        """Move on after an iteration of so many trajectories with this mean KL of each.

            beta <- beta * (1 + clip(kl / target - 1, -0.2, 0.2) * min(1, trajectories / horizon))

        The controller of Ziegler et al. (arXiv:1909.08593, section 2.2). `kl` is the mean over
        trajectories of the sum over their tokens, in nats, as in the paper (OpenRLHF compares the
        target with the mean over tokens).
        """
        if self._target is not None:
            error = min(max(kl / self._target - 1.0, -0.2), 0.2)
            self.beta *= 1.0 + error * min(1.0, trajectories / self._horizon)


def check_start(beta: float, target: float | None, *, name: str) -> None:
    """Raise ValueError where a controller would start at 0; `name` is the key of `beta`."""
    if target is not None and beta == 0.0:
        raise ValueError(
            f"a controller multiplies {name}, so from 0 it never leaves 0; start above it, or "
            "leave out the target"
        )

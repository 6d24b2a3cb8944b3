"""What `train` may say about tasks and groups: curriculum, replay and the price of length."""

from __future__ import annotations

from pydantic import Field, model_validator

from agentrl.core.settings import Settings


class CurriculumSettings(Settings):
    """Tasks are drawn by what the policy makes of them, instead of in turn.

    A task's rate p is the running mean of its scores (`eval.score`, cut to [0, 1]); one that was
    never played has p = 1/2. Its weight is p (1 - p), largest where the score varies most, or with
    `band` 1 where p lies in it and 0 elsewhere. A share `explore` of the draws is uniform.
    """

    band: tuple[float, float] | None = None
    explore: float = Field(default=0.2, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check(self) -> CurriculumSettings:
        if self.band is not None and not 0.0 <= self.band[0] < self.band[1] <= 1.0:
            raise ValueError(f"band = {list(self.band)} must be two rates, as in [0.2, 0.8]")
        return self


class ReplaySettings(Settings):
    """Stored successes for groups that failed as a whole (ARPO for GUI agents, arXiv:2505.16282).

    The newest `capacity` successful trajectories of each task are kept. Where no trajectory of a
    group scores above 0, one of its task's takes part in its comparison.
    """

    capacity: int = Field(default=8, ge=1)


class OverlongSettings(Settings):
    """Soft punishment of length (DAPO, arXiv:2503.14476, eq. 13): the component `overlong`.

    With n action tokens in a trajectory it costs nothing up to n = length - buffer, then
    penalty * (n - (length - buffer)) / buffer, and `penalty` from n = length on.
    """

    length: int = Field(ge=1)
    buffer: int = Field(ge=1)
    penalty: float = Field(default=1.0, gt=0.0)

    @model_validator(mode="after")
    def _check(self) -> OverlongSettings:
        if self.buffer > self.length:
            raise ValueError(f"buffer = {self.buffer} tokens are more than length = {self.length}")
        return self

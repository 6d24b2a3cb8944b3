"""The base of everything that a recipe configures: strict, frozen, typed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error. A method is its own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

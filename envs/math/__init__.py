"""Problems of mathematics: generated ones, or those of GSM8K, MATH, AIME, OlympiadBench, SVAMP."""

from __future__ import annotations

from .env import MathEnv

__all__ = ["MathEnv"]

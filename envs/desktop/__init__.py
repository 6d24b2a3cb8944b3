"""Real X desktops with OSWorld's actions, tasks and evaluators."""

from __future__ import annotations

from .confinement import DesktopSettings
from .env import DesktopEnv

__all__ = ["DesktopEnv", "DesktopSettings"]

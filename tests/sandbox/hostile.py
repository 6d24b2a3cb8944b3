"""The table of hostile programs: what attacks a sandbox, and how each attack may end."""

from __future__ import annotations

from hostile_channels import CHANNELS
from hostile_files import FILES
from hostile_records import LIMITS, Hostile, filled
from hostile_resources import RESOURCES
from hostile_survivors import SURVIVORS
from hostile_watcher import WATCHER
from hostile_world import KERNEL, NETWORK, PROCESSES

__all__ = ["HOSTILE", "LIMITS", "Hostile", "filled"]

HOSTILE = (
    *RESOURCES,
    *SURVIVORS,
    *FILES,
    *NETWORK,
    *PROCESSES,
    *KERNEL,
    *CHANNELS,
    *WATCHER,
)
"""Every attack, by unique name."""

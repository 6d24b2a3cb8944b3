"""Games in text: Sokoban and FrozenLake."""

from .frozenlake import FrozenLakeEnv
from .sokoban import SokobanEnv

__all__ = ["FrozenLakeEnv", "SokobanEnv"]

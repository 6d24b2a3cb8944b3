"""Gymnasium, both ways: our environments for its users, its text environments for training."""

from agentrl.gym.export import GymnasiumEnv, gymnasium_id, register_all
from agentrl.gym.foreign import FromGymnasium

__all__ = ["FromGymnasium", "GymnasiumEnv", "gymnasium_id", "register_all"]

register_all()

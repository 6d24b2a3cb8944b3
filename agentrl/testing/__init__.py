"""For tests of environments and methods: the conformance kit and hand-made trees."""

from agentrl.testing.conformance import EnvReport, check_env, check_env_sync

__all__ = ["EnvReport", "check_env", "check_env_sync"]

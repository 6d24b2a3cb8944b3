"""For tests of environments and methods: the conformance kit and hand-made trees."""

from agentrl.testing.conformance import RULES, EnvReport, check_env, check_env_sync

__all__ = ["RULES", "EnvReport", "check_env", "check_env_sync"]

"""What a recipe says about rollouts: sampling, limits and how many run at once."""

from __future__ import annotations

from pydantic import Field, model_validator

from agentrl.core.settings import Settings


class SamplingSettings(Settings):
    """How actions are sampled; the learner's log-probabilities use the same values.

    With `segment_tokens` an action is sampled in segments of at most so many tokens, each of them a
    node of the tree, so that samplers fork within a turn (TreePO, SPO and TreeRL are about one long
    turn). The environment acts on the whole action, limits and stops are those of the whole action,
    and evaluation samples actions whole. Each segment is a request of its own, whose prompt an
    engine with a prefix cache (vllm) has computed already.
    """

    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    max_tokens_per_turn: int = Field(default=128, ge=1)
    segment_tokens: int | None = Field(default=None, ge=1)


class LimitsSettings(Settings):
    """The budget of one trajectory and the deadline of everything that can hang.

    `max_tokens` counts the whole trajectory, its prompt included; `max_generated_tokens` and
    `max_tool_calls` count along the path, so a branch starts with what its parent used. Seconds
    are time spent in the phase itself: waiting for a free slot is no part of them.
    Where only the server knows the tokens of a text (a chat engine), its own counts are taken, and
    what was added since its last reply is estimated; its own bound on a context ends an episode
    like `max_tokens`. `turn_seconds` bounds one generation (a segment's, where
    there are segments), `tool_seconds` one `step` of the
    environment (its tool calls included), `reset_seconds` one reset or fork, `episode_seconds` the
    sum of all phases.
    """

    max_turns: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=4096, ge=2)
    max_generated_tokens: int | None = Field(default=None, ge=1)
    max_tool_calls: int | None = Field(default=None, ge=0)
    reset_seconds: float = Field(default=60.0, gt=0.0)
    turn_seconds: float = Field(default=600.0, gt=0.0)
    tool_seconds: float = Field(default=60.0, gt=0.0)
    episode_seconds: float = Field(default=3600.0, gt=0.0)
    close_seconds: float = Field(default=5.0, gt=0.0)


class RolloutSettings(Settings):
    """How many episodes are played at once, and what happens to those that fail.

    `workers` is the number of rollout hosts, each with an engine of its own; `concurrency` the
    number of live episodes of one host; `gpus_per_worker` is what Ray reserves for each (a
    fraction where workers share a device; 0 where the learner has the only one). A failed line is
    rebuilt up to `retries` times, then masked out. More failures than `max_failure_rate` of the
    trajectories of an iteration stop the run. After `stall_seconds` without progress an episode is
    named in the log.

    With `env_hosts` the environments of each rollout worker live in that many processes of their
    own: one that crashes, leaks or blocks takes down its sessions only, which are rebuilt on a
    new one and counted. `env_host_memory_gib` is the resident memory above which a host is ended.
    With 0 hosts environments live in the rollout worker itself, which is the cheapest.
    """

    workers: int = Field(default=1, ge=1)
    concurrency: int = Field(default=64, ge=1)
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    retries: int = Field(default=2, ge=0)
    max_failure_rate: float = Field(default=0.5, ge=0.0, le=1.0)
    stall_seconds: float = Field(default=120.0, gt=0.0)
    env_hosts: int = Field(default=0, ge=0)
    env_host_memory_gib: float | None = Field(default=None, gt=0.0)
    sampling: SamplingSettings = SamplingSettings()
    limits: LimitsSettings = LimitsSettings()

    @model_validator(mode="after")
    def _turn_fits(self) -> RolloutSettings:
        if self.sampling.max_tokens_per_turn >= self.limits.max_tokens:
            raise ValueError(
                f"max_tokens_per_turn = {self.sampling.max_tokens_per_turn} leaves no room for a "
                f"prompt within limits.max_tokens = {self.limits.max_tokens}; lower the first or "
                "raise the second"
            )
        return self

    @model_validator(mode="after")
    def _cap_has_a_host(self) -> RolloutSettings:
        if self.env_host_memory_gib is not None and not self.env_hosts:
            raise ValueError(
                f"env_host_memory_gib = {self.env_host_memory_gib:g} caps environment hosts, and "
                "env_hosts is 0; set it to 1 or more"
            )
        return self

"""What a recipe may say; every key is read by something and has its default here or in its room."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from agentrl.core.errors import nearest
from agentrl.core.settings import Settings
from agentrl.credit import AnyCredit, GrpoCredit
from agentrl.engine.settings import AnyEngine, VllmSettings
from agentrl.filters import AnyFilter
from agentrl.learner.settings import LearnerSettings
from agentrl.recipe.models import resolve_model
from agentrl.recipe.presets import PRESETS
from agentrl.recipe.selection import CurriculumSettings, OverlongSettings, ReplaySettings
from agentrl.rollout.settings import RolloutSettings
from agentrl.samplers import AnySampler
from agentrl.samplers.chain import ChainSampler


class EnvSettings(Settings):
    """Which environment (a registered id, `module:Class` or `gym:<id>`), and its own settings.

    In YAML the settings stand beside `id`: `env: {id: search/facts, max_turns: 4}`. `wrappers` is
    a list of what stands around the environment, the first one next to it:
    `wrappers: [{type: turn_limit, max_turns: 3}]` (see `agentrl.core.wrappers`).
    """

    id: str
    args: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or isinstance(data.get("args"), Mapping):
            return data
        return {
            "args": {key: value for key, value in data.items() if key != "id"},
            **{key: value for key, value in data.items() if key == "id"},
        }

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        return {"id": self.id, **self.args}


class NewModelSettings(Settings):
    """A small Qwen3-shaped decoder with random weights and a tokenizer trained on the env's text.

    `vocabulary` tokens, `layers` of `width`.
    """

    vocabulary: int = Field(default=768, ge=300)
    width: int = Field(default=128, ge=32, multiple_of=32)
    layers: int = Field(default=3, ge=1)


class PolicySettings(Settings):
    """The model being trained: a built-in name (`tiny/search`), a folder or a hub id.

    With `new` the model is built from nothing under that name, for `agentrl sft`. After each sync
    the engine's log-probabilities of probe tokens may differ from the learner's by at most
    `probe_bound` nats, by default what the engine's dtype explains (see `agentrl.engine.probe`).
    The reference of the KL term (`learner.loss.kl`) is `model` as the run found it.
    """

    model: str
    new: NewModelSettings | None = None
    probe_bound: float | None = Field(default=None, gt=0.0)

    @property
    def path(self) -> str:
        """Folder or hub id of `model`."""
        return resolve_model(self.model)


class TrainSettings(Settings):
    """How long and in what portions: `iterations` of `tasks_per_iteration` tasks.

    An iteration's groups are trained in `updates_per_iteration` parts. What
    is trained was sampled by the policy or one of the `max_lag` versions before it: with 0 sampling
    waits for each update, otherwise both go on side by side. The run also ends when it has spent
    `max_generated_tokens` or `max_tool_calls`.

    `refill` is dynamic sampling (DAPO, arXiv:2503.14476): up to so many more rounds of tasks are
    played while fewer than `tasks_per_iteration` groups pass the recipe's `filters`; only those
    train, and what is more than enough is not used. `hints` are the shares of the solution with
    which a group that failed as a whole is sampled again, one after the other (GHPO,
    arXiv:2507.10628; needs the wrapper `hints`). `curriculum`, `replay` and `overlong` are sections
    of their own. What counts as a success in all of them is `eval.score` above 0.

    A checkpoint is written every `save_every` iterations (0: only at the end), and the newest
    `keep_checkpoints` stay.
    """

    iterations: int = Field(default=100, ge=1)
    tasks_per_iteration: int = Field(default=16, ge=1)
    updates_per_iteration: int = Field(default=1, ge=1)
    max_lag: int = Field(default=0, ge=0)
    max_generated_tokens: int | None = Field(default=None, ge=1)
    max_tool_calls: int | None = Field(default=None, ge=1)
    refill: int = Field(default=0, ge=0)
    hints: tuple[float, ...] = ()
    curriculum: CurriculumSettings | None = None
    replay: ReplaySettings | None = None
    overlong: OverlongSettings | None = None
    save_every: int = Field(default=10, ge=0)
    keep_checkpoints: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        rungs = (0.0, *self.hints, 1.0)
        if any(low >= high for low, high in pairwise(rungs)):
            raise ValueError(
                f"hints = {list(self.hints)} must be growing shares between 0 and 1, as in "
                "[0.25, 0.5, 0.75]"
            )
        return self


class EvalSettings(Settings):
    """Evaluation every `every` iterations (0: never in between), at the start and at the end.

    The first `tasks` tasks of `split` (all by default) are each played `samples` times at
    `temperature`; `score` is the reward component that counts, or "reward" for their sum.
    """

    every: int = Field(default=0, ge=0)
    at_start: bool = True
    at_end: bool = True
    split: str = "eval"
    tasks: int | None = Field(default=None, ge=1)
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, ge=0.0)
    score: str = "reward"


class SftSettings(Settings):
    """`agentrl sft`: `steps` updates, each on `sequences_per_step` of the env's demonstrations.

    It ends early where an evaluation (`eval.every`) reaches the score `stop_at`, so that
    reinforcement learning finds something left to learn.
    """

    steps: int = Field(default=500, ge=1)
    sequences_per_step: int = Field(default=48, ge=1)
    stop_at: float = 1.0


class LogSettings(Settings):
    """What a run writes beside `metrics.jsonl`.

    `wandb` is the project to log to (None: not). The trees of every `trees`-th iteration and of
    each evaluation are stored as Parquet (0: none).
    """

    tensorboard: bool = True
    wandb: str | None = None
    trees: int = Field(default=1, ge=0)


class BandSettings(Settings):
    """The lowest and the highest score (`eval.score`) that seeds of a recipe are known to have.

    They are of the first evaluation after so many generated tokens.
    """

    low: float
    high: float
    generated_tokens: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_a_band(self) -> BandSettings:
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}; exchange them")
        return self


class Recipe(Settings):
    """One run.

    `expect` is the result that the recipe is known to reach, printed at the end with where the run
    stands against `band`. `preset` names a published algorithm whose settings stand below all that
    the recipe says itself (`agentrl recipe presets`).
    `runtime` "ray" gives every rollout worker and learner rank a process of its own, on `cluster`
    (a Ray address; None: this machine); "local" runs the same classes in one process.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    expect: str = ""
    band: BandSettings | None = None
    preset: str | None = None
    seed: int = Field(default=0, ge=0)
    runtime: Literal["ray", "local"] = "ray"
    cluster: str | None = None
    env: EnvSettings
    policy: PolicySettings
    engine: AnyEngine = VllmSettings()
    sampler: AnySampler = ChainSampler()
    rollout: RolloutSettings = RolloutSettings()
    credit: AnyCredit = GrpoCredit()
    filters: tuple[AnyFilter, ...] = ()
    learner: LearnerSettings = LearnerSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    sft: SftSettings | None = None
    log: LogSettings = LogSettings()

    @field_validator("preset")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in PRESETS:
            raise ValueError(
                f"no preset is named {name!r}.{nearest(name, PRESETS)} Known: "
                f"{', '.join(sorted(PRESETS))}"
            )
        return name

    @model_validator(mode="after")
    def _over_its_preset(self) -> Recipe:
        if self.preset is None:
            return self
        missing = PRESETS[self.preset].settings.keys() - self.model_fields_set
        if missing:
            raise ValueError(
                f"the settings of preset {self.preset!r} are not there ({', '.join(missing)}): a "
                "file gets them when `agentrl.recipe.load` reads it, a dictionary from "
                "`agentrl.recipe.presets.with_preset`"
            )
        return self

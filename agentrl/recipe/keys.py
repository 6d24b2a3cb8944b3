"""Every key of a recipe: what it takes, its default and one line on what it does."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from agentrl.core.errors import RecipeError, nearest
from agentrl.core.settings import Settings
from agentrl.recipe.messages import members
from agentrl.recipe.schema import Recipe
from agentrl.recipe.source import Place

ABOUT = {
    "name": "name of the run; its folder is runs/NAME-DATE",
    "expect": "the result that the recipe is known to reach, printed at the end",
    "band": "section with the scores that the recipe is known to reach, for the verdict at the end",
    "band.low": "lowest score of its runs",
    "band.high": "highest score of its runs",
    "band.generated_tokens": "generated tokens after which they were evaluated",
    "preset": "a published algorithm, whose settings stand below the recipe's own: `agentrl recipe "
    "presets`",
    "seed": "fixes tasks, sampling and branching",
    "runtime": "ray: a process for each rollout worker and learner rank; local: one for all",
    "cluster": "address of a Ray cluster to join; none: this machine",
    "env.id": "a registered id, module:Class or gym:ID; the environment's settings stand beside it",
    "policy.model": "built-in name, folder or hub id of the model to train",
    "policy.probe_bound": "nats by which engine and learner may differ after a sync; none: the "
    "dtype's",
    "policy.new": "section that builds a new model instead of loading one, for `agentrl sft`",
    "policy.new.vocabulary": "tokens of the tokenizer, which is trained on the env's text",
    "policy.new.width": "width of the decoder",
    "policy.new.layers": "layers of the decoder",
    "engine.dtype": "dtype of the engine's weights; auto: float32 on a CPU, the model's on a GPU",
    "engine.max_model_len": "tokens of prompt and action together; none: the model's limit",
    "engine.max_num_seqs": "sequences that are generated at once",
    "engine.block_size": "tokens that the prefix cache shares as one; none: vLLM's",
    "engine.kv_cache_gib": "size of the key-value cache; none: small on a CPU, what is left on a "
    "GPU",
    "engine.gpu_memory_utilization": "share of a GPU's memory that the engine takes",
    "engine.tensor_parallel": "GPUs over which one engine is split",
    "engine.threads": "CPU threads of the engine; none: PyTorch's",
    "engine.eager": "no compilation and no CUDA graphs; none: on a CPU only",
    "engine.trust_remote_code": "run the code that comes with a hub model",
    "engine.device": "device of the model; auto: a GPU if there is one",
    "engine.max_batch": "sequences that are generated together",
    "engine.batch_window": "seconds that a request waits for others to be generated with",
    "engine.script": "random, oracle (gold actions) or spoiled_oracle (the same made wrong)",
    "engine.latency": "mean delay of an action in seconds",
    "engine.latency_sigma": "spread of the delay's logarithm",
    "engine.latency_cap": "longest delay in seconds",
    "engine.seed": "seed of the script",
    "engine.base_url": "address of the server, up to its version, as in https://host/v1",
    "engine.headers": "headers that are sent with every request; $NAME is an environment variable",
    "engine.extra": "fields that are sent with every request",
    "engine.omit": "fields that are not sent, for models that refuse them, as in [temperature]",
    "engine.max_tokens_field": "name of the field that bounds a reply",
    "engine.tools": "native: tools and calls in fields of their own; text: both as text",
    "engine.inline": "a result inside the policy's turn: a message of the user, or continue the "
    "reply (vLLM, SGLang)",
    "engine.requests_per_minute": "most requests in any minute; none: no limit",
    "engine.tokens_per_minute": "most tokens in any minute; none: no limit",
    "engine.patience": "seconds for which a server may say that it is asked too often",
    "engine.model": "the server's name for the model; none: policy.model",
    "engine.api_key_env": "environment variable that holds the key",
    "engine.prompt": "what the server is sent: token ids, or text",
    "engine.top_logprobs": "log-probabilities per token, for a top-k entropy; 0: none",
    "engine.concurrency": "requests under way at once",
    "engine.timeout": "seconds after which a request is given up and sent again",
    "engine.retries": "how often a failed request is sent again",
    "engine.backoff": "seconds before the first retry, doubled for each further one",
    "engine.max_backoff": "longest wait before a retry in seconds",
    "sampler.trajectories": "trajectories of one task in an iteration, branches included",
    "sampler.initial": "trajectories that start from the prompt; branches fill up the rest",
    "sampler.alpha": "branch probability P = alpha + beta dH: P where the entropy is the start's",
    "sampler.beta": "weight of the change of entropy dH in P",
    "sampler.threshold": "P above which a turn branches",
    "sampler.branch_factor": "continuations of a turn that branches, the original included",
    "sampler.probe_tokens": "first tokens of an action over which the entropy is averaged",
    "sampler.trees": "trees of one task, each of which starts with a whole chain",
    "sampler.expansions": "new lines of a tree in one round, each from one of its nodes",
    "sampler.rounds": "times that a tree is expanded",
    "sampler.branch_probability": "share of turns that branch where the entropy is the line's "
    "first",
    "sampler.entropy_weight": "by how much a rise of the entropy raises that share",
    "sampler.split": "weight of H_root - H_tool in the share of the budget that starts at the "
    "prompt",
    "sampler.penalty": "what each sibling takes from a turn's score (at2po), or each branch just "
    "before it from its P (aepo)",
    "sampler.entropy_below": "mean entropy in nats below which the policy forgets (eepo)",
    "sampler.window": "iterations that this entropy is averaged over",
    "sampler.rate": "size of the one step that forgets",
    "sampler.widths": "continuations of each state after 0, 1, ... turns (or segments); 1 past the "
    "last",
    "sampler.continuations": "trajectories from each token that a tree forks at",
    "sampler.simulations": "trajectories of one tree's search",
    "sampler.width": "continuations of a node before a search goes below it",
    "sampler.exploration": "weight of what is seldom visited beside what earned most",
    "sampler.selection": "uct: by visits alone; puct: by visits and the policy's own probability",
    "sampler.decision": "threshold: branch where P is above it; bernoulli: with probability P",
    "rollout.workers": "rollout workers, each with an engine of its own",
    "rollout.concurrency": "episodes that one worker plays at once",
    "rollout.gpus_per_worker": "GPUs that Ray reserves for each worker, fractions allowed",
    "rollout.retries": "how often a failed trajectory is rebuilt before it is masked out",
    "rollout.max_failure_rate": "share of failed trajectories above which the run stops",
    "rollout.stall_seconds": "seconds without progress after which an episode is named in the log",
    "rollout.env_hosts": "processes for the environments of each worker; 0: in the worker itself",
    "rollout.env_host_memory_gib": "memory above which such a process is replaced; none: no limit",
    "rollout.sampling.temperature": "temperature of sampling, the learner's too",
    "rollout.sampling.top_p": "nucleus sampling; training needs 1.0",
    "rollout.sampling.top_k": "the k most probable tokens only; training needs 0, all of them",
    "rollout.sampling.max_tokens_per_turn": "longest action in tokens",
    "rollout.sampling.segment_tokens": "tokens after which an action may fork; none: between turns "
    "only",
    "rollout.limits.max_turns": "actions in a trajectory",
    "rollout.limits.max_tokens": "tokens of a trajectory, its prompt included",
    "rollout.limits.max_generated_tokens": "tokens of all actions of a trajectory",
    "rollout.limits.max_tool_calls": "tool calls of a trajectory",
    "rollout.limits.reset_seconds": "deadline of one reset or fork of the environment",
    "rollout.limits.turn_seconds": "deadline of one action's generation",
    "rollout.limits.tool_seconds": "deadline of one step of the environment, its tool calls "
    "included",
    "rollout.limits.episode_seconds": "deadline of an episode, the sum of all its phases",
    "rollout.limits.close_seconds": "deadline of closing an environment",
    "credit.scale": "divide by the standard deviation of the group (std), of all (batch), by none",
    "credit.singleton": "a group of one: zero trains nothing, raw takes its return, error stops",
    "credit.truncated": "truncated trajectories: keep, mask (compared, not trained), exclude; "
    "against a critic: bootstrap the last state's value, terminal (nothing follows), mask",
    "credit.terms": "against the tree (intra), the task's trees (inter), or both",
    "credit.baseline": "what returns are held against; for reinforce a constant",
    "credit.worth": "an advantage is the return less the baseline, or one (imitation)",
    "credit.turn_weight": "weight of rewards of single turns beside the outcome",
    "credit.gamma": "discount of rewards that come after a step",
    "credit.gamma_turn": "discount from a turn to the next, beside gamma inside of turns",
    "credit.lam": "lambda: 0 trusts the critic's next value, 1 the rewards alone",
    "credit.whiten": "advantages less their mean and over their standard deviation, iteration-wide",
    "credit.omega": "weight of a step's advantage beside its trajectory's",
    "credit.similarity": "steps whose observations are so alike compare too; none: equal states",
    "credit.history": "states before the present one that the smallest groups share",
    "credit.alpha": "a group that shares k states more weighs (k + 1)^alpha",
    "credit.zeros": "levels with an advantage of exactly 0: count, or drop from the mean",
    "credit.node_value": "a node's value: mean over children, softmax of uncertainty, or leaves",
    "credit.against": "what a turn's value is compared with: nothing, its parent, the root, both",
    "credit.prefix_weighting": "a shared turn counts for each trajectory, or once",
    "credit.weighting": "subtrees of a trajectory count alike, or by their leaves",
    "credit.attribution": "of shared turns: soft keeps each trajectory's advantage, hard the mean",
    "filters.low": "mean score of a group that is too low",
    "filters.high": "mean score of a group that is too high",
    "filters.keep": "best: the best successes of a group, or all; widest: share of the groups",
    "filters.above": "score above which a trajectory succeeds",
    "filters.prune": "share of a group that does not train",
    "learner.ranks": "processes that train together",
    "learner.zero_stage": "what DeepSpeed shards: 1 optimizer, 2 also gradients, 3 also weights",
    "learner.pack_tokens": "tokens of one micro-batch, into which sequences are packed",
    "learner.gradient_checkpointing": "compute activations again instead of keeping them",
    "learner.device": "device of the learner; auto: a GPU if there is one",
    "learner.dtype": "dtype of the learner's weights",
    "learner.threads": "CPU threads of a rank; none: PyTorch's",
    "learner.loss.level": "what has one importance ratio: a token, a turn (AT²PO), a trajectory "
    "(GSPO)",
    "learner.loss.clip_low": "the lower bound: 1 - clip_low of a ratio, -clip_low of its logarithm "
    "(logclip), a fall of the probability (dppo; none: the paper's)",
    "learner.loss.clip_high": "the upper bound, as clip_low",
    "learner.loss.dual_clip": "cap c on the loss of negative advantages, c·|A|; none: no cap",
    "learner.loss.entropy_balanced": "what clip_high stops keeps a gradient (AEPO)",
    "learner.loss.tau_positive": "how fast a gain's gradient fades away from a ratio of 1",
    "learner.loss.tau_negative": "the same for a loss; higher fades sooner",
    "learner.loss.divergence": "distance that masks a token: of probabilities (tv), or their kl",
    "learner.loss.beta": "quadratic: pull to the behaviour policy; gvpo: scale of the log-ratios",
    "learner.loss.aggregation": "divisor: trained tokens, none (token_sum), turns or trajectories "
    "(mean or sum of their tokens), or `constant` tokens a trajectory",
    "learner.loss.constant": "tokens that a trajectory is divided by, for aggregation: constant",
    "learner.loss.kl": "weight of the penalty against the reference; 0.0: no reference",
    "learner.loss.kl_estimator": "estimator of that penalty",
    "learner.loss.kl_target": "nats of a trajectory that a controller aims at; none: kl is fixed",
    "learner.loss.kl_horizon": "trajectories over which the controller acts",
    "learner.loss.entropy": "weight of an entropy bonus",
    "learner.kl_in_reward": "section that takes the distance from the reference off the reward",
    "learner.kl_in_reward.beta": "what a nat of it costs; 0.0: nothing, and no reference",
    "learner.kl_in_reward.target": "nats of a trajectory that a controller aims at; none: beta is "
    "fixed",
    "learner.kl_in_reward.horizon": "trajectories over which the controller acts",
    "learner.correction": "section that makes up for an engine or a policy that sampled otherwise",
    "learner.correction.cap": "the most that a token's weight may be",
    "learner.correction.level": "of which ratio: a token's, or the product along the trajectory",
    "learner.correction.low": "below this ratio it is masked",
    "learner.correction.high": "above this ratio it is masked",
    "learner.correction.delta": "nats a token by which the policy may have left a bad trajectory",
    "learner.entropy_control": "section that keeps the policy from becoming certain too soon",
    "learner.entropy_control.target": "mean entropy below which there is a bonus",
    "learner.entropy_control.step": "by how much an update moves the bonus's weight",
    "learner.entropy_control.alpha": "how much more advantages weigh where entropy is high",
    "learner.entropy_control.fraction": "share of the tokens that it is about",
    "learner.entropy_control.low": "covariance above which a token may be left out",
    "learner.entropy_control.high": "covariance below which a token may be left out",
    "learner.entropy_control.coefficient": "weight of the distance that holds tokens back",
    "learner.optimizer.learning_rate": "learning rate of AdamW after the warm-up",
    "learner.optimizer.warmup_steps": "updates of the linear warm-up",
    "learner.optimizer.weight_decay": "weight decay of AdamW",
    "learner.optimizer.betas": "the two betas of AdamW",
    "learner.optimizer.eps": "epsilon of AdamW",
    "learner.optimizer.grad_clip": "bound on the global norm of the gradient; 0.0: none",
    "learner.lora": "section that trains low-rank adapters and freezes the rest",
    "learner.critic": "what says how much a state is worth, for credit that asks (gae and its kin)",
    "learner.critic.trunk": "a decoder of the critic's own, or a head on the policy's",
    "learner.critic.learning_rate": "of all that is not the policy's",
    "learner.critic.value_clip": "how far a value may move from its old one; none: no bound",
    "learner.critic.coefficient": "weight of the value loss in a shared trunk; none: 0.1",
    "learner.critic.warmup_updates": "first updates, in which only a critic of its own learns",
    "learner.lora.rank": "rank of the adapters",
    "learner.lora.alpha": "scale of the adapters, divided by their rank",
    "learner.lora.targets": "names of the adapted modules; none: all linear ones but the output",
    "train.iterations": "iterations of the run",
    "train.tasks_per_iteration": "tasks in an iteration, each a group of trajectories",
    "train.updates_per_iteration": "optimizer steps into which an iteration's groups are parted",
    "train.max_lag": "policy versions that a trained token may be behind; 0: sampling waits for "
    "each update",
    "train.max_generated_tokens": "the run ends when so many tokens were sampled",
    "train.max_tool_calls": "the run ends when so many tool calls were made",
    "train.refill": "most further rounds of tasks while too few groups pass the filters",
    "train.hints": "shares of the solution for groups that failed, as in [0.25, 0.5, 0.75]",
    "train.curriculum": "section that draws tasks by their running success rates",
    "train.curriculum.band": "rates of the tasks to draw; none: weights p (1 - p)",
    "train.curriculum.explore": "share of the tasks that is drawn uniformly",
    "train.replay": "section that compares groups that failed with a stored success",
    "train.replay.capacity": "newest successes of a task that are kept",
    "train.overlong": "section that takes a price for length off the reward",
    "train.overlong.length": "action tokens of a trajectory that pays the whole price",
    "train.overlong.buffer": "tokens before that from which the price grows",
    "train.overlong.penalty": "the whole price",
    "train.save_every": "iterations between checkpoints; 0: only at the end",
    "train.keep_checkpoints": "newest checkpoints that stay",
    "eval.every": "iterations between evaluations; 0: none in between",
    "eval.at_start": "evaluate before the first iteration",
    "eval.at_end": "evaluate after the last iteration",
    "eval.split": "split of the environment's tasks",
    "eval.tasks": "the first so many of them; none: all",
    "eval.samples": "trajectories of each task",
    "eval.temperature": "temperature of these trajectories",
    "eval.score": "reward component that counts, or reward for the sum of all",
    "sft": "section that `agentrl sft` needs: imitation of the env's demonstrations or expert",
    "sft.steps": "updates",
    "sft.sequences_per_step": "demonstrations in an update",
    "sft.stop_at": "score of an evaluation at which imitation ends early",
    "log.tensorboard": "write TensorBoard files",
    "log.wandb": "project of Weights & Biases to log to; none: do not",
    "log.trees": "store the trees of every so many iterations and of evaluations; 0: none",
}
"""What each key does; the classes of the settings have the whole story."""

_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "in {}s"}


class Key(NamedTuple):
    """A key by its full name, what it takes, its default as YAML ("" if it must be given)."""

    name: str
    takes: str
    default: str
    about: str


class Section(NamedTuple):
    """Keys that stand together; `type` is the type that they belong to, or ""."""

    place: Place
    type: str
    is_default: bool
    keys: tuple[Key, ...]

    @property
    def title(self) -> str:
        """As in `sampler, type: chain (the default)`."""
        name = ".".join(self.place) or "top level"
        if not self.type:
            return name
        return f"{name}, type: {self.type}" + (" (the default)" if self.is_default else "")


def sections(
    root: type[Settings] = Recipe, place: Place = (), *, is_default: bool = True
) -> Iterator[Section]:
    """All sections of `root`, each before those inside of it."""
    union = "type" in root.model_fields
    name = str(root.model_fields["type"].default) if union else ""
    yield Section(place, name, is_default, tuple(_keys(root, place)))
    for key, field in root.model_fields.items():
        for cls in members(field):
            yield from sections(cls, (*place, key), is_default=isinstance(field.default, cls))


def shown_sections() -> Iterator[Section]:
    """`sections`, in which what all types of a place have alike stands once, before them."""
    everything = list(sections())
    for one in everything:
        types = [other for other in everything if one.type and other.place == one.place]
        alike = [key for key in one.keys if len(types) > 1 and all(key in t.keys for t in types)]
        if types and one is types[0] and alike:
            yield Section(one.place, ", ".join(t.type for t in types), False, tuple(alike))
        yield one._replace(keys=tuple(key for key in one.keys if key not in alike))


def find_sections(prefix: str) -> list[Section]:
    """The sections at or below `prefix` (all for ""), or the one with that single key.

    Raises RecipeError when there is none.
    """
    everything = list(shown_sections())
    wanted = tuple(prefix.split(".")) if prefix else ()
    found = [one for one in everything if one.place[: len(wanted)] == wanted]
    for one in everything if not found else ():
        keys = tuple(key for key in one.keys if key.name == prefix)
        found += [one._replace(keys=keys)] if keys else []
    if not found:
        known = [".".join(one.place) for one in everything if one.place]
        known += [key.name for one in everything for key in one.keys]
        raise RecipeError(
            f"a recipe has no section or key {prefix!r}.{nearest(prefix, known)} `agentrl recipe "
            "keys` shows all."
        )
    return found


def _keys(cls: type[Settings], place: Place) -> Iterator[Key]:
    for key, field in cls.model_fields.items():
        name = ".".join((*place, key))
        if key == "type" or (members(field) and not _optional(field)) or name == "env.args":
            continue
        takes = "section" if members(field) else _takes(field)
        yield Key(name, takes, _default(field), ABOUT.get(name, ""))


def _optional(field: FieldInfo) -> bool:
    return NoneType in get_args(field.annotation)


def _takes(field: FieldInfo) -> str:
    bounds = [
        text.format(f"{limit:g}")
        for rule in field.metadata
        for name, text in _BOUNDS.items()
        if (limit := getattr(rule, name, None)) is not None
    ]
    words, or_none = _words(field.annotation), ", or none" if _optional(field) else ""
    return f"{words} {', '.join(bounds)}".strip() + or_none


def _words(annotation: Any) -> str:
    """A type in the words of YAML: choices as they are written."""
    if get_origin(annotation) is Literal:
        return ", ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_words(one) for one in get_args(annotation) if one is not NoneType)
    if get_origin(annotation) is tuple:
        inside = [one for one in get_args(annotation) if one is not Ellipsis]
        return f"list of {' and '.join(_words(one) for one in inside)}"
    if get_origin(annotation) is dict:
        return "mapping"
    return {bool: "true, false", int: "integer", float: "number", str: "text"}[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    value = list(value) if isinstance(value, tuple) else value
    if value is None:
        return "none"
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()

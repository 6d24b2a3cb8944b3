"""Published algorithms as data: what each sets in a recipe, below the recipe's own keys.

A preset holds what makes the method what it is: sampler, filters, credit, loss, corrections. The
sizes of a run (tasks, iterations, learning rate, tokens) are the recipe's. Where a paper and its
released code differ, the paper's value stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentrl.recipe.source import Place


class Preset(NamedTuple):
    """What a preset is in one line, where it was published, and its part of a recipe."""

    about: str
    source: str
    settings: Mapping[str, Any]


_CHAINS = {"type": "chain"}
_GRPO = {"type": "grpo", "scale": "std"}


def _ppo(low: float = 0.2, high: float = 0.2, **more: Any) -> dict[str, Any]:
    return {"type": "ppo", "clip_low": low, "clip_high": high, **more}


def _kl(weight: float, estimator: str = "k3") -> dict[str, Any]:
    return {"kl": weight, "kl_estimator": estimator}


def _part(
    loss: Mapping[str, Any],
    *,
    credit: Mapping[str, Any] = _GRPO,
    sampler: Mapping[str, Any] = _CHAINS,
    learner: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """A preset's part of a recipe; GRPO's chains and credit where nothing else is said."""
    return {
        "sampler": sampler,
        "credit": credit,
        "learner": {"loss": loss, **(learner or {})},
        **sections,
    }


PRESETS: dict[str, Preset] = {
    # -- against nothing, or the batch
    "reinforce": Preset(
        "plain policy gradient with the return as the advantage",
        "Williams, 1992",
        _part(
            {"type": "reinforce", "aggregation": "sequence_sum"},
            credit={"type": "reinforce", "worth": "return"},
        ),
    ),
    "reinforce_pp": Preset(
        "returns-to-go whitened over the batch, KL in the reward; needs no group",
        "arXiv:2501.03262",
        _part(
            _ppo(aggregation="token_mean"),
            credit={"type": "reinforce_pp", "baseline": "none"},
            learner={"kl_in_reward": {"beta": 0.01}},
        ),
    ),
    "reinforce_pp_baseline": Preset(
        "the same against the group's mean, with KL in the loss",
        "arXiv:2501.03262",
        _part(
            _ppo(aggregation="token_mean", **_kl(0.01, "k2")),
            credit={"type": "reinforce_pp", "baseline": "group"},
        ),
    ),
    # -- against a critic
    "ppo": Preset(
        "a critic and GAE over tokens, KL in the reward",
        "arXiv:1707.06347, arXiv:2203.02155",
        _part(
            _ppo(aggregation="token_mean"),
            credit={"type": "gae", "gamma": 1.0, "lam": 0.95},
            learner={"critic": {"trunk": "own"}, "kl_in_reward": {"beta": 0.02}},
        ),
    ),
    "vagen": Preset(
        "a critic and GAE between turns and within them",
        "arXiv:2510.16907",
        _part(
            _ppo(aggregation="token_mean"),
            credit={"type": "bilevel_gae", "gamma_turn": 0.95, "lam": 1.0},
            learner={"critic": {"trunk": "own"}},
        ),
    ),
    "ufo": Preset(
        "PPO that may answer again after a wrong answer",
        "arXiv:2507.14295",
        _part(
            _ppo(0.2, 0.28, aggregation="token_mean", entropy=0.001, **_kl(0.001)),
            credit={"type": "gae", "gamma": 1.0, "lam": 1.0},
            learner={"critic": {"trunk": "own"}},
            filters=[{"type": "widest", "keep": 0.25}],
            env={"wrappers": [{"type": "try_again"}]},
        ),
    ),
    # -- what filters leave is imitated
    "raft": Preset(
        "imitates the best of each group, where it succeeded",
        "arXiv:2304.06767",
        _part(
            {"type": "reinforce", "aggregation": "token_mean"},
            credit={"type": "reinforce", "worth": "one"},
            filters=[{"type": "best", "keep": "best"}],
        ),
    ),
    "raft_pp": Preset(
        "RAFT with a clipped importance ratio",
        "arXiv:2504.11343",
        _part(
            _ppo(aggregation="token_mean", **_kl(0.001)),
            credit={"type": "reinforce", "worth": "one"},
            filters=[{"type": "best", "keep": "best"}],
        ),
    ),
    "reinforce_rej": Preset(
        "the return of groups neither all right nor all wrong; for rewards of +1 and -1 "
        "(`credit.baseline: 0.5` for 1 and 0)",
        "arXiv:2504.11343",
        _part(
            _ppo(aggregation="token_mean", **_kl(0.001)),
            credit={"type": "reinforce", "worth": "return"},
            sampler={"type": "chain", "trajectories": 4},
            filters=[{"type": "not_constant"}],
        ),
    ),
    # -- against the group
    "rloo": Preset(
        "a trajectory against the mean of the others, plain policy gradient, KL in the reward",
        "arXiv:2402.14740",
        _part(
            {"type": "reinforce", "aggregation": "sequence_sum"},
            credit={"type": "rloo"},
            learner={"kl_in_reward": {"beta": 0.05}},
        ),
    ),
    "opo": Preset(
        "the baseline of least variance, weighed by length; one update an iteration",
        "arXiv:2505.23585",
        _part({"type": "reinforce", "aggregation": "sequence_sum"}, credit={"type": "opo"}),
    ),
    "grpo": Preset(
        "group-relative advantages, the mean of trajectories' means, KL in the loss",
        "arXiv:2402.03300",
        _part(_ppo(aggregation="sequence_mean", **_kl(0.04))),
    ),
    "process_grpo": Preset(
        "GRPO over the rewards of single turns",
        "arXiv:2402.03300, section 4.1.3",
        _part(
            _ppo(aggregation="sequence_mean", **_kl(0.04)),
            credit={"type": "turn_grpo", "baseline": "steps"},
        ),
    ),
    "dr_grpo": Preset(
        "GRPO without the two divisions that bias it; `learner.loss.constant` is your limit",
        "arXiv:2503.20783",
        _part(
            _ppo(aggregation="constant", constant=3000.0),
            credit={"type": "grpo", "scale": "none"},
        ),
    ),
    "otb": Preset(
        "the baseline of least variance at every token",
        "arXiv:2602.07078",
        _part(_ppo(aggregation="token_mean"), credit={"type": "otb"}),
    ),
    "lite_ppo": Preset(
        "the group's mean and the batch's spread, over all tokens alike",
        "arXiv:2508.08221",
        _part(_ppo(aggregation="token_mean"), credit={"type": "grpo", "scale": "batch"}),
    ),
    "dapo": Preset(
        "dynamic sampling, clip-higher, every token alike, a price for length; set "
        "`train.overlong` to your limit",
        "arXiv:2503.14476",
        _part(
            _ppo(0.2, 0.28, aggregation="token_mean"),
            credit={**_GRPO, "truncated": "mask"},
            sampler={"type": "chain", "trajectories": 16},
            filters=[{"type": "not_constant"}],
            train={"refill": 9, "overlong": {"length": 20480, "buffer": 4096}},
        ),
    ),
    "cppo": Preset(
        "GRPO that trains the half of each group with the largest advantages",
        "arXiv:2503.22342",
        _part(
            _ppo(aggregation="sequence_mean", **_kl(0.04)),
            sampler={"type": "chain", "trajectories": 16},
            filters=[{"type": "top_advantage", "prune": 0.5}],
        ),
    ),
    "ghpo": Preset(
        "groups that failed as a whole are sampled again with more and more of the solution",
        "arXiv:2507.10628",
        _part(
            _ppo(aggregation="token_mean"),
            env={"wrappers": [{"type": "hints"}]},
            train={"hints": [0.25, 0.5, 0.75]},
        ),
    ),
    "eepo": Preset(
        "half of each group is sampled from a policy that has just forgotten the other half",
        "arXiv:2510.05837",
        _part(
            _ppo(aggregation="sequence_mean"),
            sampler={"type": "eepo", "entropy_below": 0.3, "window": 3, "rate": 3e-3},
        ),
    ),
    "arpo_replay": Preset(
        "GRPO with a stored success in groups that failed as a whole (ARPO for GUI agents)",
        "arXiv:2505.16282",
        _part(
            _ppo(0.2, 0.3, dual_clip=3.0, aggregation="token_mean"),
            train={"replay": {"capacity": 8}},
        ),
    ),
    "pass_at_k": Preset(
        "what the best of a group adds to it: one of k is to be right",
        "arXiv:2503.19595",
        _part(_ppo(aggregation="token_mean"), credit={"type": "pass_at_k"}),
    ),
    # -- other ratios and clips
    "gspo": Preset(
        "one importance ratio a trajectory, the geometric mean of its tokens'",
        "arXiv:2507.18071",
        _part(_ppo(3e-4, 4e-4, level="sequence", aggregation="sequence_mean")),
    ),
    "gspo_token": Preset(
        "GSPO's ratio with the tokens' own gradients, for advantages that differ within",
        "arXiv:2507.18071",
        _part(_ppo(3e-4, 4e-4, level="sequence_token", aggregation="sequence_mean")),
    ),
    "gmpo": Preset(
        "the geometric mean of clipped token ratios",
        "arXiv:2507.20673",
        _part(
            {"type": "logclip", "clip_low": 0.4, "clip_high": 0.4, "aggregation": "sequence_mean"}
        ),
    ),
    "cispo": Preset(
        "capped importance weights, and no token loses its gradient",
        "arXiv:2506.13585",
        _part({"type": "cispo", "clip_low": 1.0, "clip_high": 4.0, "aggregation": "token_mean"}),
    ),
    "sapo": Preset(
        "a soft gate on the token's ratio instead of a clip",
        "arXiv:2511.20347",
        _part(
            {
                "type": "sapo",
                "tau_positive": 1.0,
                "tau_negative": 1.05,
                "aggregation": "sequence_mean",
            }
        ),
    ),
    "dppo": Preset(
        "tokens masked by how far their probability has moved, not by their ratio",
        "arXiv:2602.04879",
        _part({"type": "dppo", "divergence": "tv", "aggregation": "token_mean"}),
    ),
    "vespo": Preset(
        "a smooth weight on the product of a trajectory's ratios",
        "arXiv:2602.10693",
        _part({"type": "vespo", "aggregation": "token_mean"}),
    ),
    "gvpo": Preset(
        "regression of log-ratios onto advantages within whole groups",
        "arXiv:2504.19599",
        _part({"type": "gvpo", "beta": 0.1}, credit={"type": "grpo", "scale": "none"}),
    ),
    "clip_cov": Preset(
        "some tokens of high covariance between advantage and probability do not train",
        "arXiv:2505.22617",
        _part(
            _ppo(aggregation="token_mean"),
            learner={"entropy_control": {"type": "clip_cov", "fraction": 2e-4}},
        ),
    ),
    "kl_cov": Preset(
        "the tokens of highest covariance are held back",
        "arXiv:2505.22617",
        _part(
            _ppo(aggregation="token_mean"),
            learner={"entropy_control": {"type": "kl_cov", "fraction": 2e-4, "coefficient": 1.0}},
        ),
    ),
    # -- turns
    "mt_grpo": Preset(
        "turns' own rewards beside the outcome, each against its group",
        "arXiv:2505.11821",
        _part(_ppo(aggregation="sequence_mean"), credit={"type": "mt_grpo", "turn_weight": 1.0}),
    ),
    "gigpo": Preset(
        "a trajectory against its group, and each step against others from the same state",
        "arXiv:2505.10978",
        _part(
            _ppo(aggregation="token_mean", **_kl(0.01)),
            credit={"type": "gigpo", "scale": "std", "gamma": 0.95, "omega": 1.0},
        ),
    ),
    "hgpo": Preset(
        "each step against others from the same state after the same history",
        "arXiv:2602.22817",
        _part(
            _ppo(aggregation="token_mean", **_kl(0.01)),
            credit={"type": "hgpo", "gamma": 0.95, "history": 2, "alpha": 1.0},
        ),
    ),
    # -- trees
    "tree_grpo": Preset(
        "random expansion of whole turns; leaves against their tree and against all trees",
        "arXiv:2509.21240",
        _part(
            _ppo(aggregation="sequence_mean", **_kl(0.001)),
            credit={"type": "tree_grpo", "terms": "both"},
            sampler={"type": "tree", "trees": 2, "expansions": 2, "rounds": 1},
        ),
    ),
    "arpo": Preset(
        "branches where a tool's answer made the policy uncertain, advantages kept apart",
        "arXiv:2507.19849",
        _part(
            _ppo(aggregation="sequence_mean"),
            credit={"type": "arpo", "attribution": "soft"},
            sampler={"type": "arpo", "decision": "threshold"},
        ),
    ),
    "aepo": Preset(
        "ARPO with a measured split and fewer branches in a row; what is clipped above keeps its "
        "gradient",
        "arXiv:2510.14545",
        _part(
            _ppo(aggregation="sequence_mean", entropy_balanced=True),
            credit={"type": "arpo", "attribution": "soft"},
            sampler={"type": "aepo", "trajectories": 12},
            learner={"entropy_control": {"type": "aware", "alpha": 0.2}},
        ),
    ),
    "at2po": Preset(
        "the least certain turns sampled again, turns valued by the leaves below, one ratio a turn",
        "arXiv:2601.04767",
        _part(
            _ppo(3e-3, 4e-3, level="turn", aggregation="sequence_mean"),
            credit={"type": "at2po", "node_value": "softmax", "against": "nothing"},
            sampler={"type": "at2po", "initial": 10, "expansions": 6, "rounds": 2},
        ),
    ),
    "tree_rl": Preset(
        "least likely tokens sampled again; what follows a fork is worth what it adds to task and "
        "parent",
        "arXiv:2506.11902",
        _part(
            _ppo(aggregation="sequence_mean"),
            credit={"type": "tree_rl"},
            sampler={"type": "tree_rl", "trees": 6, "expansions": 2, "rounds": 1},
        ),
    ),
    "tree_po": Preset(
        "every turn branches; a trajectory against those that share each of its beginnings",
        "arXiv:2508.17445",
        _part(
            _ppo(0.2, 0.28, aggregation="token_mean"),
            credit={"type": "tree_po", "weighting": "alike"},
            sampler={"type": "spo", "widths": [2, 2, 2, 2]},
        ),
    ),
    "spo": Preset(
        "every turn branches, and is worth what its value adds to that of its parent",
        "arXiv:2505.23564",
        _part(
            _ppo(aggregation="token_mean"),
            credit={"type": "spo"},
            sampler={"type": "spo", "widths": [6, 6, 6]},
        ),
    ),
}
"""The presets by name."""


def described(name: str) -> str:
    """As where a setting comes from."""
    return f"preset {name} ({PRESETS[name].source})"


def with_preset(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[Place]]:
    """`data` of a recipe over its preset's settings, and the places that are the preset's.

    Sections are merged key by key, lists replaced. A section for which the recipe names another
    `type` is the recipe's alone: the preset's keys belong to its own. Without a preset, or with one
    that does not exist, `data` as it is.
    """
    name = data.get("preset")
    if not isinstance(name, str) or name not in PRESETS:
        return dict(data), []
    added: list[Place] = []
    return _merged(data, PRESETS[name].settings, (), added), added


def _merged(
    own: Mapping[str, Any], below: Mapping[str, Any], place: Place, added: list[Place]
) -> dict[str, Any]:
    if own.get("type", below.get("type")) != below.get("type"):
        return dict(own)
    result = dict(own)
    for key, value in below.items():
        here = (*place, key)
        if key not in own:
            result[key] = value
            added.append(here)
        elif isinstance(value, Mapping) and isinstance(own[key], Mapping):
            result[key] = _merged(own[key], value, here, added)
    return result

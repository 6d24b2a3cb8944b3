"""How old the policy was that sampled what an iteration trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Group


def lag_metrics(groups: Sequence[Group], *, version: int, max_lag: int) -> dict[str, float]:
    """`policy/lag_...` metrics of `groups`, which the policy of `version` is trained on.

    The lag of a token is `version` less that of the weights that sampled it; means and shares are
    over the action tokens of all turns, those of failures included.

    Raises:
        ContractError: a token is older than `max_lag` allows, or newer than the policy.
    """
    turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
    found = [version - turn.token_versions for turn in turns]
    lag = np.concatenate([np.zeros(0, np.int64), *found])
    if len(lag) and not 0 <= lag.min() <= lag.max() <= max_lag:
        raise ContractError(
            f"tokens were sampled by versions {version - lag.max()} to {version - lag.min()} of "
            f"the policy, and version {version} with train.max_lag = {max_lag} may be trained on "
            f"{version - max_lag} to {version}: an engine tells a version that it does not hold"
        )
    counts = np.bincount(lag, minlength=max_lag + 1)
    return {
        "policy/lag_mean": float(lag.mean()) if len(lag) else float("nan"),
        "policy/lag_max": float(lag.max()) if len(lag) else float("nan"),
        "policy/mixed_turns": float(sum(turn.versions is not None for turn in turns)),
        **{f"policy/lag_{n}_share": float(c / max(1, len(lag))) for n, c in enumerate(counts)},
    }

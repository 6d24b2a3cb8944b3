"""The turns of many trees as columns: credit over a million turns is array work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentrl.core.types import ROOT, Float64, Group

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TurnTable:
    """Turns of all trees of some groups, one row each; K turns, L leaves.

    A parent's row always stands before its children's. `parent` is a row of this table or `ROOT`.
    Leaves that are infrastructure failures are left out of `leaf_turn`: they are in no statistic
    and train nothing.
    """

    group: Int64  # (K,) index into the groups
    tree: Int64  # (K,) index over all trees
    parent: Int64  # (K,)
    depth: Int64  # (K,) 0 for a root's child
    reward: Float64  # (K,)
    tokens: Int64  # (K,) action tokens
    state: Int64  # (K,) equal for turns of a group that acted from the same state; -1: unknown
    leaf_turn: Int64  # (L,) row of each leaf
    leaf_group: Int64  # (L,)
    leaf_truncated: Bool  # (L,)
    n_groups: int

    @classmethod
    def of(cls, groups: Sequence[Group]) -> TurnTable:
        """Columns of `groups`, in order of group, tree and node."""
        group: list[int] = []
        tree: list[int] = []
        parent: list[int] = []
        depth: list[int] = []
        reward: list[float] = []
        tokens: list[int] = []
        state: list[int] = []
        known: dict[tuple[int, str], int] = {}
        leaf_turn: list[int] = []
        leaf_group: list[int] = []
        leaf_truncated: list[bool] = []
        n_trees = 0
        for g, item in enumerate(groups):
            for one in item.trees:
                base = len(parent)
                for node, (above, turn) in enumerate(zip(one.parents, one.turns, strict=True)):
                    group.append(g)
                    tree.append(n_trees)
                    parent.append(ROOT if above == ROOT else base + above)
                    depth.append(0 if above == ROOT else depth[base + above] + 1)
                    reward.append(turn.reward)
                    tokens.append(len(turn.action_ids))
                    key = (g, turn.state_key)
                    state.append(known.setdefault(key, len(known)) if turn.state_key else -1)
                    reason = one.leaves.get(node)
                    if reason is not None and not reason.is_failure:
                        leaf_turn.append(base + node)
                        leaf_group.append(g)
                        leaf_truncated.append(reason.is_truncation)
                n_trees += 1
        return cls(
            group=np.asarray(group, np.int64),
            tree=np.asarray(tree, np.int64),
            parent=np.asarray(parent, np.int64),
            depth=np.asarray(depth, np.int64),
            reward=np.asarray(reward, np.float64),
            tokens=np.asarray(tokens, np.int64),
            state=np.asarray(state, np.int64),
            leaf_turn=np.asarray(leaf_turn, np.int64),
            leaf_group=np.asarray(leaf_group, np.int64),
            leaf_truncated=np.asarray(leaf_truncated, np.bool_),
            n_groups=len(groups),
        )


@dataclass(frozen=True, slots=True)
class Credit:
    """What each turn is worth, as the clipped loss needs it (DESIGN.md 4, Learner).

    Over the trajectories that train a turn, each with its row weight w: `positive` is the sum of
    w * max(A, 0), `negative` the sum of w * min(A, 0), `weight` the sum of w. A turn with weight
    0 is not trained, which is not the same as an advantage of 0.
    """

    positive: Float64  # (K,)
    negative: Float64  # (K,)
    weight: Float64  # (K,)

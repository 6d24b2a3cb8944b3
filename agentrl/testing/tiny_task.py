"""A task so small that a credit method's expected gradient is a sum over all groups there are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import NamedTuple

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit.aggregate import CreditMethod, assign
from agentrl.credit.table import Bool, TurnTable


class Estimate(NamedTuple):
    """Mean (T, A) of a gradient's estimate over all groups, and its standard deviation (norm)."""

    mean: Float64
    spread: float


@dataclass(frozen=True, slots=True)
class TinyTask:
    """At turn k of at most T one of A actions, with a reward each; some of them end the episode.

    The policy is a softmax over logits of its own for every turn, so a gradient is (T, A), with
    respect to these. Actions of the last turn all end.
    """

    policy: Float64  # (T, A) probabilities
    reward: Float64  # (T, A)
    ends: Bool  # (T, A)

    @classmethod
    def random(
        cls, seed: int, *, turns: int = 3, actions: int = 3, varied: bool = True
    ) -> TinyTask:
        """Policy and rewards drawn from `seed`; with `varied` all actions but the last one end.

        Rewards are those of a typical task: 0 or 1 where an episode ends, and something below 1/2
        for going on.
        """
        rng = np.random.default_rng(seed)
        logits = rng.normal(0.0, 1.0, (turns, actions))
        policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        ends = np.zeros((turns, actions), np.bool_)
        ends[:, : actions - 1 if varied else 0] = True
        ends[-1] = True
        paid = rng.integers(0, 2, (turns, actions)).astype(np.float64)
        return cls(policy, np.where(ends, paid, 0.5 * rng.random((turns, actions))), ends)

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """The actions of every trajectory there is."""
        done: list[tuple[int, ...]] = []
        going: list[tuple[int, ...]] = [()]
        for ends in self.ends:
            new = [(*path, action) for path in going for action in range(len(ends))]
            done += [path for path in new if ends[path[-1]]]
            going = [path for path in new if not ends[path[-1]]]
        return done

    def gradient(self) -> Float64:
        """The gradient (T, A) of the expected return."""
        total = np.zeros_like(self.policy)
        for path in self.paths:
            returns = sum(self.reward[k, action] for k, action in enumerate(path))
            for k, action in enumerate(path):
                total[k] += self._chance(path) * returns * self._score(k, action)
        return total

    def estimate(self, method: CreditMethod, size: int) -> Estimate:
        """What `method` makes of groups of `size` chains: sum of A * grad log pi / `size`.

        All groups are compared in one call, so a method with statistics over the whole iteration
        (REINFORCE++, `scale="batch"`) is out of place here.
        """
        paths = self.paths
        chance = np.array([self._chance(path) for path in paths])
        members = list(combinations_with_replacement(range(len(paths)), size))
        weight = np.array([_orders(one) * prod(chance[list(one)]) for one in members])
        table, action = self._table([[paths[index] for index in one] for one in members])
        credit = assign(table, method, "constant", 1.0).credit.at_turns(table)
        score = np.eye(self.policy.shape[1])[action] - self.policy[table.depth]
        found = np.zeros((len(members), *self.policy.shape))
        gain = (credit.positive + credit.negative)[:, None] * score / size
        np.add.at(found, (table.group, table.depth), gain)
        mean = np.tensordot(weight, found, 1)
        variance = float(weight @ ((found - mean) ** 2).sum((1, 2)))
        return Estimate(mean, variance**0.5)

    def _chance(self, path: tuple[int, ...]) -> float:
        return float(prod(self.policy[k, action] for k, action in enumerate(path)))

    def _score(self, turn: int, action: int) -> Float64:
        score: Float64 = -self.policy[turn]
        score[action] += 1.0
        return score

    def _table(self, groups: list[list[tuple[int, ...]]]) -> tuple[TurnTable, np.ndarray]:
        """Chains of one token a turn with these actions, and the action of each row."""
        flat = [(g, path) for g, group in enumerate(groups) for path in group]
        length = np.array([len(path) for _, path in flat])
        ends = np.cumsum(length) - 1
        tree = np.repeat(np.arange(len(flat)), length)
        depth = np.arange(len(tree)) - (ends - length + 1)[tree]
        action = np.array([action for _, path in flat for action in path])
        group = np.array([g for g, _ in flat])
        table = TurnTable(
            group=group[tree],
            tree=tree,
            parent=np.where(depth == 0, ROOT, np.arange(len(tree)) - 1),
            depth=depth,
            reward=self.reward[depth, action],
            tokens=np.ones(len(tree), np.int64),
            state=group[tree] * len(self.policy) + depth,
            leaf_turn=ends,
            leaf_group=group,
            leaf_truncated=np.zeros(len(flat), np.bool_),
            n_groups=len(groups),
        )
        return table, action


def _orders(members: tuple[int, ...]) -> int:
    """In how many orders these can be drawn."""
    return factorial(len(members)) // prod(factorial(n) for n in Counter(members).values())

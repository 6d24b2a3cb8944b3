"""Made-up trees: by hand from a few numbers, or at random from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from agentrl.core.types import ROOT, Failure, Group, StopReason, ToolRecord, TrajectoryTree, Turn


def tree_of(
    parents: Sequence[int],
    rewards: Mapping[int, float],
    *,
    tokens: int | Sequence[int] = 2,
    stops: Mapping[int, StopReason] | None = None,
    task_id: str = "task",
) -> TrajectoryTree:
    """A tree with one turn for each of `parents`; nodes without a child become leaves.

    `rewards` by node (0 elsewhere), `tokens` of each action, `stops` by leaf (terminated
    elsewhere).
    """
    sizes = [tokens] * len(parents) if isinstance(tokens, int) else tokens
    tree = TrajectoryTree(task_id, [1, 2, 3])
    for node, (parent, size) in enumerate(zip(parents, sizes, strict=True)):
        reward = rewards.get(node, 0.0)
        tree.add(
            parent,
            Turn(
                action_ids=np.arange(10 * node, 10 * node + size, dtype=np.int32),
                logprobs=np.full(size, -0.5, np.float32),
                entropies=np.full(size, 0.25, np.float32),
                observation_ids=np.asarray([7], np.int32),
                reward=reward,
                rewards={"answer": reward},
            ),
        )
    for node in sorted(set(range(len(parents))) - set(parents)):
        tree.end(node, (stops or {}).get(node, StopReason.TERMINATED))
    return tree


def chains(returns: Sequence[float], *, tokens: int = 2, turns: int = 1) -> Group:
    """A group of chains of `turns` turns, each paid at its end."""
    parents = [ROOT, *range(turns - 1)]
    trees = tuple(
        tree_of(parents, {turns - 1: value}, tokens=tokens, task_id="task") for value in returns
    )
    return Group("task", "task", trees)


def wide_group(
    seed: int,
    *,
    leaves: int,
    turns: int = 4,
    trees: int = 1,
    tokens: int = 24,
    vocabulary: int = 700,
    name: str = "task",
) -> Group:
    """A group of `trees` trees with `leaves` leaves in all, each `turns` deep, some of them right.

    Every turn has `tokens` tokens of its own and three times as many seen; forks lie at random
    depths, and their first tokens are more uncertain than others.
    """
    rng = np.random.default_rng(seed)
    prompt = rng.integers(300, vocabulary, 12).astype(np.int32)
    grown = []
    for number in range(trees):
        tree = TrajectoryTree(name, prompt, group_id=f"{name}-{number}", seed=seed)
        for _ in range(leaves // trees + (number < leaves % trees)):
            inner = [ROOT, *sorted(set(range(len(tree.parents))) - set(tree.leaves))]
            node = inner[int(rng.integers(len(inner)))] if tree.parents else ROOT
            forks = node != ROOT
            for _ in range(turns - len(tree.path(node))):
                node = tree.add(node, _wide_turn(rng, tokens, vocabulary, uncertain=forks))
                forks = False
            last = tree.turns[node]
            paid = float(rng.random() < 0.5)
            tree.turns[node] = replace(last, reward=paid, rewards={"em": paid}, tool_calls=())
            tree.end(node, StopReason.TERMINATED)
        grown.append(tree)
    return Group(name, name, tuple(grown))


def _wide_turn(rng: np.random.Generator, tokens: int, vocabulary: int, *, uncertain: bool) -> Turn:
    entropies = rng.exponential(0.6 if uncertain else 0.15, tokens).astype(np.float32)
    return Turn(
        action_ids=rng.integers(300, vocabulary, tokens).astype(np.int32),
        logprobs=-rng.exponential(0.3, tokens).astype(np.float32),
        entropies=entropies,
        observation_ids=rng.integers(300, vocabulary, 3 * tokens).astype(np.int32),
        policy_version=int(rng.integers(3)),
        tool_calls=(ToolRecord("search", {"query": f"q{int(rng.integers(1000))}"}, True, 0.002),),
        generate_seconds=float(rng.random()),
        env_seconds=0.01,
    )


def second_turn_groups(
    seed: int, *, groups: int, trees: int, arms: int, rooms: int = 1, closing: int = 0
) -> list[Group]:
    """Groups of trees of one first turn and `arms` second turns, of which each pays 0 or 1.

    What is paid is drawn for every second turn by itself, so nothing depends on the first one. All
    first turns act from one state, and lead to one of `rooms` others, in which the second turns
    act. `closing` turns that are never paid follow each. One arm makes chains.
    """
    rng = np.random.default_rng(seed)
    made = []
    for number in range(groups):
        grown = []
        for _ in range(trees):
            paid = {1 + arm: float(rng.random() < 0.5) for arm in range(arms)}
            room = f"room-{rng.integers(rooms)}" if rooms > 1 else "second"
            later = [range(1 + arms * layer, 1 + arms * (layer + 1)) for layer in range(closing)]
            parents = [ROOT, *[0] * arms, *(node for layer in later for node in layer)]
            tree = tree_of(parents, paid)
            states = ["first", *[room] * arms, *["closing"] * arms * closing]
            tree.turns[:] = [
                replace(turn, state_key=state)
                for turn, state in zip(tree.turns, states, strict=True)
            ]
            grown.append(tree)
        made.append(Group(f"task-{number}", f"task-{number}", tuple(grown)))
    return made


def random_groups(
    seed: int, *, n_groups: int = 3, max_trees: int = 3, max_turns: int = 12
) -> list[Group]:
    """Groups of random trees with forks, shared turns, empty actions and every kind of end."""
    rng = np.random.default_rng(seed)
    groups = []
    for index in range(n_groups):
        name = f"task-{index}"
        trees = tuple(
            _random_tree(rng, name, int(rng.integers(0, max_turns + 1)))
            for _ in range(int(rng.integers(1, max_trees + 1)))
        )
        groups.append(Group(f"group-{index}", name, trees))
    return groups


def _random_tree(rng: np.random.Generator, task_id: str, turns: int) -> TrajectoryTree:
    prompt = rng.integers(0, 500, int(rng.integers(1, 6))).astype(np.int32)
    tree = TrajectoryTree(
        task_id, prompt, group_id=f"of {task_id}", seed=int(rng.integers(1 << 30))
    )
    for node in range(turns):
        # Nearby parents make deep trees with a fork here and there.
        parent = int(rng.integers(max(ROOT, node - 3), node))
        tree.add(parent, _random_turn(rng))
    for node in sorted(set(range(turns)) - set(tree.parents)):
        tree.end(node, list(StopReason)[int(rng.integers(len(StopReason)))])
    if rng.random() < 0.3:
        tree.failures.append(Failure(ROOT, StopReason.ENV_ERROR, "the server hung up: «é»"))
    return tree


def _random_turn(rng: np.random.Generator) -> Turn:
    size, seen = int(rng.integers(0, 6)), int(rng.integers(0, 4))
    parts = {"answer": float(rng.integers(0, 3)), "format": round(float(rng.random()), 1)}
    calls = [ToolRecord("search", {"query": f"q{size}", "k": seen}, ok=True, seconds=0.25)]
    turn = Turn(
        action_ids=rng.integers(0, 500, size).astype(np.int32),
        logprobs=-rng.random(size).astype(np.float32),
        entropies=rng.random(size).astype(np.float32),
        observation_ids=rng.integers(0, 500, seen).astype(np.int32),
        policy_version=int(rng.integers(0, 5)),
        reward=sum(parts.values()),
        rewards=parts,
        metrics={"searches": float(seen)} if seen else {},
        state_key=f"state-{seen}",
        tool_calls=tuple(calls[: int(rng.integers(0, 2))]),
        malformed_calls=int(rng.integers(0, 2)),
        prefilled_tokens=int(rng.integers(0, 9)),
        generate_seconds=float(rng.random()),
        env_seconds=float(rng.random()),
    )
    if size < 5:
        return turn
    # New weights came before the last token of every long action.
    return replace(turn, versions=turn.policy_version + np.asarray([0, 0, 0, 0, 1], np.int32))

"""Groups as the plain data that the page shows: turns with their text and credit, and tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from agentrl.core.types import TrajectoryTree
from agentrl.evals.samples import Sample
from agentrl.view.pieces import Vocabulary
from agentrl.view.read import Loaded, TreeText


class Shown(NamedTuple):
    """One tree with everything that is known of it; `credit` (K, 3) positive, negative, weight."""

    tree: TrajectoryTree
    credit: npt.NDArray[np.float64] | None
    text: TreeText | None
    sample: Sample | None


def trees_of(loaded: Loaded) -> list[list[Shown]]:
    """The trees of each group."""
    credit = loaded.credit
    columns = None
    if credit is not None:
        columns = np.stack([credit.positive, credit.negative, credit.weight], axis=1)
    texts = iter(loaded.texts) if loaded.texts is not None else None
    samples = iter(loaded.samples) if loaded.samples is not None else None
    row = 0
    found = []
    for group in loaded.groups:
        trees = []
        for tree in group.trees:
            rows = slice(row, row + len(tree.turns))
            row = rows.stop
            trees.append(
                Shown(
                    tree,
                    None if columns is None else columns[rows],
                    None if texts is None else next(texts),
                    None if samples is None else next(samples),
                )
            )
        found.append(trees)
    return found


def turns_chunk(
    groups: Sequence[Sequence[Shown]],
    vocabulary: Vocabulary | None,
    *,
    probe: int,
    counted: bool = True,
) -> dict[str, Any]:
    """Turns of `groups` as columns, one entry for each tree.

    `H` is the mean entropy of an action's first `probe` tokens, `Hmean` of all; `n` and `o` count
    tokens of action and observation; where what a tree holds are not `counted`, being no tokens,
    `n` is what the policy's server told. Text is None where nothing can decode it.
    """
    decoded = _decoded(groups, vocabulary)
    found = [[_tree(one, decoded, probe) for one in trees] for trees in groups]
    if not counted:
        for tree, one in zip(_flat(found), _flat(groups), strict=True):
            told = [turn.sampled_tokens or 0 for turn in one.tree.turns]
            tree |= {"promptTokens": 0, "n": told, "o": [0] * len(told)}
    return {"groups": found}


T = TypeVar("T")


def _flat(groups: Iterable[Iterable[T]]) -> list[T]:
    return [one for trees in groups for one in trees]


def _decoded(
    groups: Sequence[Sequence[Shown]], vocabulary: Vocabulary | None
) -> Iterator[str] | None:
    """Texts of the prompts and turns without one, in the order in which `_tree` asks for them."""
    if vocabulary is None:
        return None
    wanted: list[Sequence[int]] = []
    for trees in groups:
        for one in trees:
            if one.text is None:
                wanted.append(one.tree.prompt_ids.tolist())
                for turn in one.tree.turns:
                    wanted += (turn.action_ids.tolist(), turn.observation_ids.tolist())
    return iter(vocabulary.texts(wanted))


def _tree(one: Shown, decoded: Iterator[str] | None, probe: int) -> dict[str, Any]:
    tree, turns = one.tree, one.tree.turns
    prompt, actions, observations = _texts(one, decoded)
    data: dict[str, Any] = {
        "prompt": prompt,
        "seed": tree.seed,
        "parents": tree.parents,
        "leaves": {str(node): str(reason) for node, reason in tree.leaves.items()},
        "lost": [[lost.parent, str(lost.stop_reason), lost.message] for lost in tree.failures],
        "promptTokens": len(tree.prompt_ids),
        "action": actions,
        "observation": observations,
        "n": [len(turn.action_ids) for turn in turns],
        "o": [len(turn.observation_ids) for turn in turns],
        "reward": [number(turn.reward) for turn in turns],
        "rewards": [plain(dict(turn.rewards)) if turn.rewards else 0 for turn in turns],
        "measured": [plain(dict(turn.metrics)) if turn.metrics else 0 for turn in turns],
        "calls": [
            [
                [c.name, plain(dict(c.arguments)), c.ok, number(c.seconds, 5)]
                for c in turn.tool_calls
            ]
            for turn in turns
        ],
        "malformed": [turn.malformed_calls for turn in turns],
        "version": [turn.policy_version for turn in turns],
        "prefilled": [turn.prefilled_tokens for turn in turns],
        "generate": [number(turn.generate_seconds, 5) for turn in turns],
        "env": [number(turn.env_seconds, 5) for turn in turns],
        "entropyKind": turns[0].entropy_kind if turns else "none",
        "H": [_mean(turn.entropies[:probe], turn.entropy_kind) for turn in turns],
        "Hmean": [_mean(turn.entropies, turn.entropy_kind) for turn in turns],
        "logprob": [_mean(turn.logprobs) for turn in turns],
    }
    if any(turn.goes_on for turn in turns):
        data["goesOn"] = [turn.goes_on for turn in turns]
    if any(turn.state_key for turn in turns):
        data["state"] = [turn.state_key for turn in turns]
    if one.credit is not None:
        for index, name in enumerate(("positive", "negative", "weight")):
            data[name] = [number(value, 5) for value in one.credit[:, index].tolist()]
    if one.sample is not None:
        data["sample"] = _sample(one.sample)
    return data


def _texts(
    one: Shown, decoded: Iterator[str] | None
) -> tuple[str | None, list[str | None], list[str | None]]:
    """Prompt, actions and observations."""
    turns = one.tree.turns
    if one.text is not None:
        # A transcript may be shorter or longer than the turns that were counted.
        texts = [*one.text.turns, *[("", "")] * len(turns)][: len(turns)]
        return one.text.prompt, [text[0] for text in texts], [text[1] for text in texts]
    if decoded is None:
        return None, [None] * len(turns), [None] * len(turns)
    prompt = next(decoded)
    pairs = [(next(decoded), next(decoded)) for _ in turns]
    return prompt, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "number": sample.key.number,
        "scores": plain(dict(sample.scores)),
        "failure": sample.failure,
        "error": sample.error,
        "answers": list(sample.answers),
        "solved": sample.solved_turn,
        "retries": sample.retries,
        "promptTokens": sample.prompt_tokens,
        "generatedTokens": sample.generated_tokens,
        "texts": [list(turn) for turn in sample.texts] if not sample.tree.turns else [],
    }


def tokens_chunk(groups: Sequence[Sequence[Shown]]) -> dict[str, Any]:
    """Tokens of `groups`: ids, and log-probability and entropy (nats) of each token of an action.

    Versions are those of each token, None where the turn's own holds for all.
    Trees of one group that share a prompt name it by its place in `prompts`.
    """
    found = []
    for trees in groups:
        prompts: dict[tuple[int, ...], int] = {}
        data = [
            {
                "prompt": prompts.setdefault(tuple(one.tree.prompt_ids.tolist()), len(prompts)),
                "action": [turn.action_ids.tolist() for turn in one.tree.turns],
                "observation": [turn.observation_ids.tolist() for turn in one.tree.turns],
                "logprob": [_rounded(turn.logprobs) for turn in one.tree.turns],
                "entropy": [
                    _rounded(turn.entropies) if turn.entropy_kind != "none" else []
                    for turn in one.tree.turns
                ],
                "version": [
                    None if turn.versions is None else turn.versions.tolist()
                    for turn in one.tree.turns
                ],
            }
            for one in trees
        ]
        found.append({"prompts": [list(ids) for ids in prompts], "trees": data})
    return {"groups": found}


def used_tokens(groups: Sequence[Sequence[Shown]]) -> set[int]:
    """Every token id in `groups`."""
    arrays = [
        ids
        for trees in groups
        for one in trees
        for ids in (
            one.tree.prompt_ids,
            *(turn.action_ids for turn in one.tree.turns),
            *(turn.observation_ids for turn in one.tree.turns),
        )
    ]
    return set(np.unique(np.concatenate([np.zeros(0, np.int32), *arrays])).tolist())


def number(value: float | None, digits: int = 4) -> float | int | None:
    """A number short enough for a page: rounded, whole where it is, None where not finite."""
    if value is None or not math.isfinite(value):
        return None
    short = round(value, digits) if abs(value) < 1e6 else value
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def plain(value: object) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become text."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def _mean(values: npt.NDArray[np.float32], kind: str = "") -> float | int | None:
    return number(float(values.mean(dtype=float))) if len(values) and kind != "none" else None


def _rounded(values: npt.NDArray[np.float32]) -> list[float | None]:
    # Adding 0.0 turns -0.0 into 0.0, which is one character less.
    short: list[float | None] = (np.round(values.astype(np.float64), 3) + 0.0).tolist()
    return short if np.isfinite(values).all() else [number(value, 3) for value in values.tolist()]

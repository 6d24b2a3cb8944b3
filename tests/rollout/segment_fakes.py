"""A policy that goes on within a word, and an environment that tells what it heard."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from rollout_fakes import CountEnv, RuleEngine, ids_of, stage, tokenizer

from agentrl.core.env import StepResult
from agentrl.core.types import Message
from agentrl.engine.base import Completion, Sampling
from agentrl.rollout.stage import Stage

PROMPT_END = "<|im_start|>assistant\n"


class GoingOnEngine(RuleEngine):
    """Says one token after the other; `token(context, seed, place)` is (id, log-probability).

    Ends as engines do: at a stop token, at a stop string in what it sampled itself, at its limit.
    """

    def __init__(self, token: Callable[[str, int, int], tuple[int, float]]) -> None:
        super().__init__(lambda prompt, seed: ("", 0.0))
        self.token = token

    async def generate(self, prompt_ids: Any, sampling: Sampling) -> Completion:
        decode = tokenizer().backend_tokenizer.decode
        prompt = [int(one) for one in prompt_ids]
        self.calls.append((decode(prompt, skip_special_tokens=False), sampling))
        found: list[tuple[int, float]] = []
        reason = "length"
        while len(found) < sampling.max_tokens and reason == "length":
            own = [one for one, _ in found]
            context = decode(prompt + own, skip_special_tokens=False)
            found.append(self.token(context, sampling.seed or 0, len(found)))
            own = [one for one, _ in found]
            said = decode(own, skip_special_tokens=False)
            if own[-1] in sampling.stop_token_ids or any(one in said for one in sampling.stop):
                reason = "stop"
        return Completion(
            token_ids=np.asarray([one for one, _ in found], np.int32),
            logprobs=np.asarray([value for _, value in found], np.float32),
            entropies=np.asarray([-value for _, value in found], np.float32),
            entropy_kind="exact",
            finish_reason=reason,  # type: ignore[arg-type]
            policy_version=self.version,
            prefilled_tokens=len(prompt),
            seconds=0.0,
        )


def saying(*actions: str) -> GoingOnEngine:
    """Says `actions`, one a turn, from wherever in an action it is asked to go on."""

    def token(context: str, seed: int, place: int) -> tuple[int, float]:
        action = actions[context.count("heard ")]
        said = context.rpartition(PROMPT_END)[2]
        assert action.startswith(said), (said, action)
        return ids_of(action[len(said) :])[0], -0.125 * (len(said) + 1)

    return GoingOnEngine(token)


def babbling(salt: int, *, greedy: bool = False, letters: str = "abc d") -> GoingOnEngine:
    """Draws tokens of one or two letters by the context and, unless `greedy`, the seed."""
    pieces = [ids_of(one)[0] for one in (*letters, "ab", "<|im_end|>")]

    def token(context: str, seed: int, place: int) -> tuple[int, float]:
        rng = random.Random(f"{salt} {context} {0 if greedy else (seed, place)}")
        return rng.choice(pieces), -rng.random()

    return GoingOnEngine(token)


class HearingEnv(CountEnv):
    """As `CountEnv`, but says what it heard, and ends after three actions, paid by the letter a."""

    stop: tuple[str, ...] = ()

    async def step(self, action: str) -> StepResult:
        result = await super().step(action)
        said = (Message.of(self.role, f"heard {len(self.actions)}: {action!r}"),)
        done = self.count == 3
        paid = float("".join(self.actions).count("a")) if done else 0.0
        return result._replace(observation=said, terminated=done, reward=paid)


class ReplayHearingEnv(HearingEnv):
    forkable = "replay"


def in_segments(engine: Any, make_env: Any, tokens: int | None, **settings: Any) -> Stage:
    """A stage on which actions are sampled in segments of at most `tokens`."""
    setting = stage(engine, make_env, **settings)
    asked = setting.sampling.model_dump() | {"segment_tokens": tokens}
    return setting.with_sampling(type(setting.sampling)(**asked))

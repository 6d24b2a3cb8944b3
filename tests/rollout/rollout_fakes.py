"""Fakes of the rollout tests: a local ChatML tokenizer, an engine by rule and misbehaving envs."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, Task, ToolRecord, TrajectoryTree
from agentrl.engine.base import Completion, Sampling
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.render import Renderer
from agentrl.rollout.settings import LimitsSettings, SamplingSettings
from agentrl.rollout.stage import Stage

CHATML = (
    "{%- if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}"
    "{% endfor %}<|im_end|>\n{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Past assistant turns lose their thoughts once another user message follows, and tool results
# are shown as a user's, several in one turn.
FORGETFUL = (
    "{%- set ns = namespace(last=0) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}"
    "{%- set said = m.content.split('</think>')[-1] | trim if loop.index0 < ns.last "
    "else m.content %}{{ '<|im_start|>assistant\n' + said + '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}"
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}"
    "{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MINIMAL = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@cache
def tokenizer(template: str | None = CHATML) -> Any:
    """Byte-level characters with ChatML marks; `<search>` and `</search>` are one token each."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    vocabulary["ab"] = len(vocabulary)
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(
        [AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_end|>", "<|eot|>")]
    )
    core.add_tokens([AddedToken(tag, normalized=False) for tag in ("<search>", "</search>")])
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|eot|>")
    made.chat_template = template
    return made


def ids_of(text: str, template: str | None = CHATML) -> list[int]:
    return tokenizer(template).backend_tokenizer.encode(text, add_special_tokens=False).ids


Rule = Callable[[str, int], tuple[str, float]]
"""(decoded prompt, seed) -> what is said and the entropy of each of its tokens."""


class RuleEngine:
    """Says what `rule` says; `latency(seed)` seconds later."""

    def __init__(self, rule: Rule, *, latency: Callable[[int], float] | None = None) -> None:
        self.rule, self.latency, self.version = rule, latency, 0
        self.calls: list[tuple[str, Sampling]] = []
        self.kind: Any = "exact"

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def load(self, weights: Path, version: int) -> None:
        self.version = version

    async def score(self, token_ids: Sequence[int]) -> Any:
        return np.zeros(max(len(token_ids) - 1, 0), np.float32)

    async def generate(self, prompt_ids: Any, sampling: Sampling) -> Completion:
        prompt = tokenizer().backend_tokenizer.decode(
            list(map(int, prompt_ids)), skip_special_tokens=False
        )
        self.calls.append((prompt, sampling))
        if self.latency is not None:
            await asyncio.sleep(self.latency(sampling.seed or 0))
        text, entropy = self.rule(prompt, sampling.seed or 0)
        ids = np.asarray(ids_of(text)[: sampling.max_tokens], np.int32)
        return Completion(
            token_ids=ids,
            logprobs=np.full(len(ids), -entropy, np.float32),
            entropies=np.full(len(ids), entropy, np.float32),
            entropy_kind=self.kind,
            finish_reason="stop",
            policy_version=self.version,
            prefilled_tokens=len(prompt_ids),
            seconds=0.0,
        )


class CountEnv(Env):
    """Counts actions; "stop" terminates with the count as reward. Hooks make it misbehave."""

    forkable = "copy"

    def __init__(
        self,
        *,
        on_reset: Callable[[CountEnv], Awaitable[None]] | None = None,
        on_step: Callable[[CountEnv, str], Awaitable[None]] | None = None,
        role: str = "user",
        calls: int = 1,
    ) -> None:
        self.on_reset, self.on_step, self.role, self.calls = on_reset, on_step, role, calls
        self.count, self.actions, self.closed = 0, (), 0
        self.task = Task("none")

    async def reset(self, task: Task, *, seed: int) -> Observation:
        self.task, self.count, self.actions = task, 0, ()
        if self.on_reset is not None:
            await self.on_reset(self)
        return (Message.of("user", f"task {task.id}"),)

    async def step(self, action: str) -> StepResult:
        self.count += 1
        self.actions = (*self.actions, action)
        if self.on_step is not None:
            await self.on_step(self, action)
        calls = tuple(ToolRecord("count", {}, True, 0.0) for _ in range(self.calls))
        info = StepInfo(tool_calls=calls, state_key=f"count {self.count}")
        said = (Message.of(self.role, f"count {self.count}"),)
        done = action.startswith("stop")
        return StepResult(said, float(self.count) if done else 0.0, done, False, info)

    async def fork(self) -> CountEnv:
        return copy.copy(self)

    async def close(self) -> None:
        self.closed += 1


class ReplayCountEnv(CountEnv):
    forkable = "replay"


class UnforkableCountEnv(CountEnv):
    forkable = "no"


def stage(
    engine: Any,
    make_env: Callable[[], Env] = CountEnv,
    *,
    slots: int = 64,
    retries: int = 0,
    max_tokens_per_turn: int = 64,
    template: str | None = CHATML,
    **limits: Any,
) -> Stage:
    return Stage(
        make_env=make_env,
        engine=engine,
        renderer=Renderer(tokenizer(template)),
        sampling=SamplingSettings(max_tokens_per_turn=max_tokens_per_turn),
        limits=LimitsSettings(**limits),
        slots=asyncio.Semaphore(slots),
        retries=retries,
    )


async def play(stage: Stage, *, seed: int = 0) -> LiveEpisode:
    """One line, played to its end."""
    episode = await LiveEpisode.start(stage, Task("t"), seed=seed)
    turn = 0
    while completion := await episode.propose(seed=turn):
        turn += 1
        if await episode.play(completion) is not None:
            break
    await episode.close()
    return episode


def shape(tree: TrajectoryTree) -> tuple[Any, ...]:
    """All of a tree but its timings, for comparisons."""
    turns = [
        (t.action_ids.tolist(), t.observation_ids.tolist(), t.reward, t.state_key)
        for t in tree.turns
    ]
    return (
        tree.prompt_ids.tolist(),
        tuple(tree.parents),
        tuple(map(repr, turns)),
        tuple(sorted(tree.leaves.items())),
        tuple((f.parent, f.stop_reason, f.message) for f in tree.failures),
    )

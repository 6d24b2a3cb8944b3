"""Policies without a model, played by a host: scripts, and what has none and needs one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.core.errors import EngineError
from agentrl.core.types import Message, StopReason
from agentrl.engine import (
    ChatSettings,
    OpenAISettings,
    ScriptedSettings,
    VllmSettings,
    build,
    speaks_text,
)
from agentrl.engine.base import Sampling
from agentrl.engine.scripted import TranscriptScript
from agentrl.rollout.host import HostSpec, RolloutHost, renderer_for
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.rollout.transcript import CUT, Transcript
from agentrl.samplers.chain import ChainSampler

CHAT = ChatSettings(base_url="http://host/v1")
ORACLE = ScriptedSettings(script="oracle")


def test_who_speaks_text_has_a_transcript_and_who_needs_a_model_is_told(tmp_path: Path):
    assert isinstance(renderer_for("", CHAT), Transcript)
    assert isinstance(renderer_for("tiny/search", CHAT), Transcript)
    assert isinstance(renderer_for("", ORACLE, images=tmp_path), Transcript)
    assert not speaks_text(ORACLE, "some/model")
    assert not speaks_text(ScriptedSettings(), "")
    for engine in (VllmSettings(), ScriptedSettings(), OpenAISettings(base_url="http://host/v1")):
        with pytest.raises(EngineError, match=f"{engine.type!r} needs a model, and none is named"):
            renderer_for("", engine)
        with pytest.raises(EngineError, match=f"{engine.type!r} needs a model, and none is named"):
            build(engine, "")


async def played(script: str, limits: LimitsSettings | None = None, tokens: int = 128):
    rollout = RolloutSettings(
        limits=limits or LimitsSettings(), sampling=SamplingSettings(max_tokens_per_turn=tokens)
    )
    spec = HostSpec(
        env_id="search/facts",
        engine=ScriptedSettings(script=script),
        model="",
        sampler=ChainSampler(),
        rollout=rollout,
    )
    host = RolloutHost(spec)
    await host.start()
    task = host._make_env().tasks("eval")[0]
    group = await host.evaluate(task, seed=1)
    await host.close()
    return group.trajectories()[0]


async def test_an_oracle_without_a_model_earns_everything_and_a_spoiled_one_nothing():
    right, wrong = await played("oracle"), await played("spoiled_oracle")
    assert (right.episode_return, wrong.episode_return) == (1.0, 0.0)
    assert right.stop_reason is StopReason.TERMINATED
    for turn in right.turns:
        assert turn.generated_tokens == -(-len(turn.action_ids) // 4)


async def test_a_script_is_cut_at_its_limit_in_estimated_tokens():
    transcript = Transcript()
    engine = TranscriptScript(lambda context: "\u00e9" * 50, transcript)
    prompt = transcript.prompt_ids((Message.of("user", "x"),))
    whole = await engine.generate(prompt, Sampling(max_tokens=25))
    assert (transcript.action_text(whole.token_ids), whole.finish_reason) == ("\u00e9" * 50, "stop")
    cut = await engine.generate(prompt, Sampling(max_tokens=4))
    assert transcript.action_text(cut.token_ids) == "\u00e9" * 8  # 16 bytes
    assert (cut.token_ids[-1], cut.finish_reason, cut.generated_tokens) == (CUT, "length", 4)


async def test_limits_of_a_script_count_estimated_tokens():
    few = LimitsSettings(max_generated_tokens=8)
    ended = await played("oracle", few, tokens=8)
    assert ended.stop_reason is StopReason.TRUNCATED_BUDGET
    assert sum(turn.generated_tokens for turn in ended.turns) <= 8


def test_an_oracle_needs_neither_torch_nor_transformers():
    code = """
import asyncio, sys
from agentrl.core.registry import make_env
from agentrl.engine.settings import ScriptedSettings
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.samplers.chain import ChainSampler

async def main():
    engine = ScriptedSettings(script="oracle")
    spec = HostSpec(env_id="search/facts", engine=engine, model="", sampler=ChainSampler())
    host = RolloutHost(spec)
    await host.start()
    group = await host.evaluate(make_env("search/facts").tasks("eval")[0], seed=1)
    await host.close()
    print(group.trajectories()[0].episode_return)

asyncio.run(main())
print(sorted({"torch", "transformers", "tokenizers", "vllm"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "[]"]

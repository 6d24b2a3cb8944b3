"""The small search policy behind vLLM's own server: chats beside exact completions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from vllm_server import served

from agentrl.core.registry import make_env
from agentrl.core.types import StopReason, Trajectory
from agentrl.engine.settings import AnyEngine
from agentrl.evals.policy import policy_of
from agentrl.recipe.models import resolve_model
from agentrl.rollout.host import HostSpec, RolloutHost, renderer_for
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers.chain import ChainSampler

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")

ROLLOUT = RolloutSettings(
    sampling=SamplingSettings(max_tokens_per_turn=32), limits=LimitsSettings(max_tokens=512)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """Base URL of a server of the policy."""
    folder = tmp_path_factory.mktemp("server")
    with served(resolve_model("tiny/search"), folder, name="tiny", max_model_len=512) as url:
        yield url


async def played(engine: AnyEngine, model: str) -> list[Trajectory]:
    spec = HostSpec(
        env_id="search/facts", engine=engine, model=model, sampler=ChainSampler(), rollout=ROLLOUT
    )
    host = RolloutHost(spec)
    await host.start()
    try:
        tasks = make_env("search/facts").tasks("eval")[:10]
        groups = await asyncio.gather(
            *(host.evaluate(task, seed=1, temperature=0.0) for task in tasks)
        )
    finally:
        await host.close()
    return [trajectory for group in groups for trajectory in group.trajectories()]


async def test_chats_play_as_exact_completions_do(server) -> None:
    chat, no_model = policy_of(server)
    exact, model = policy_of(server, tokenizer="tiny/search")
    assert (chat.type, no_model, exact.type) == ("chat", "", "openai")
    continued = chat.model_copy(update={"inline": "continue", "top_logprobs": 3})
    ours, theirs = await played(continued, ""), await played(exact, model)
    read, render = renderer_for("", chat), renderer_for(model, exact)
    first = [read.action_text(one.turns[0].action_ids) for one in ours]
    assert first == [render.action_text(one.turns[0].action_ids) for one in theirs]
    assert all(text.endswith("</search>") for text in first)
    assert {one.stop_reason for one in ours} == {StopReason.TERMINATED}
    # The template sets a space before a reply that is continued, which the policy has not seen.
    returns = [sum(one.episode_return for one in ended) for ended in (ours, theirs)]
    assert abs(returns[0] - returns[1]) <= 3
    for one, two in zip(ours, theirs, strict=True):
        assert one.turns[0].generated_tokens == two.turns[0].generated_tokens
        assert one.turns[0].generated_tokens < len(one.turns[0].action_ids)
        assert one.turns[0].entropy_kind == "top_k"
        assert one.turns[0].logprobs.sum() == pytest.approx(two.turns[0].logprobs.sum(), abs=1e-3)


async def test_results_as_messages_of_the_user_are_played_without_failures(server) -> None:
    ended = await played(policy_of(server).engine, "")
    assert not [failure for one in ended for failure in one.tree.failures]
    allowed = {StopReason.TERMINATED, StopReason.TRUNCATED_TURNS, StopReason.TRUNCATED_TOKENS}
    assert {one.stop_reason for one in ended} <= allowed
    turns = [turn for one in ended for turn in one.turns]
    assert all(0 < turn.generated_tokens <= 32 for turn in turns)

"""What is sent is held against the types of OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterable

import httpx
import numpy as np
import pytest
from pydantic import TypeAdapter

from agentrl.core.types import Image, Message, Text
from agentrl.engine import ChatSettings
from agentrl.engine.base import Sampling
from agentrl.engine.chat import ChatEngine
from agentrl.engine.chat_messages import action_of
from agentrl.rollout.transcript import Transcript

pytest.importorskip("openai")
SCHEMA = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}


def read(value: object) -> object:
    """`value` with every lazy sequence in it read, which is when its items are checked."""
    if isinstance(value, dict):
        return {key: read(one) for key, one in value.items()}
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return [read(one) for one in value]


@pytest.mark.parametrize("tools", ["native", "text"])
async def test_a_request_of_every_kind_of_message_has_their_types(tools):
    from openai.types.chat import CompletionCreateParams

    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        whole = {"message": {"content": "x"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"choices": [whole]})

    transcript = Transcript()
    engine = ChatEngine(
        ChatSettings(base_url="http://host/v1", model="m", tools=tools, top_logprobs=2),
        transcript=transcript,
        transport=httpx.MockTransport(answer),
    )
    await engine.start()
    image = Image("image/png", b"p")
    first = (Message.of("system", "s"), Message("user", (Text("see"), image)))
    calls = transcript.action_ids(action_of("I look", [("look", '{"at": 1}'), ("look", "{}")]))
    told = (Message("tool", (Text("seen"), image)), Message.of("tool", "error: call 2: no"))
    said = transcript.action_ids("<search>x")
    inline = (Message.of("inline", "<result>r</result>"),)
    context = np.concatenate(
        [
            transcript.prompt_ids(first, (SCHEMA,)),
            *(calls, transcript.observation_ids(told, calls)),
            *(said, transcript.observation_ids(inline, said)),
        ]
    )
    await engine.generate(context, Sampling(top_p=0.5, seed=1, stop=("</search>",)))
    adapter = TypeAdapter(CompletionCreateParams)
    assert read(adapter.validate_python(sent[0])) == sent[0]
    for wrong in (
        {"role": "inline", "content": "x"},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": [{"type": "picture"}]},
    ):
        with pytest.raises(ValueError, match="validation error"):
            read(adapter.validate_python({**sent[0], "messages": [wrong]}))

"""The client of chat servers against fakes that answer well, badly and in every wrong form."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from agentrl.core.errors import ContextLengthError, EngineError
from agentrl.core.types import Image, Message
from agentrl.engine import ChatSettings, build
from agentrl.engine.base import Completion, Engine, Paced, Sampling
from agentrl.engine.chat import ChatEngine
from agentrl.rollout.images import ImageStore
from agentrl.rollout.transcript import CUT, END, TEXT, Transcript

URL = "http://server.test/v1"
ASKED = (Message.of("user", "who?"),)
SCHEMA = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}

Answer = Callable[[httpx.Request], httpx.Response]


def reply(content: object = "me", *, usage: object = None, **choice: object) -> dict[str, object]:
    """A well-formed reply; `message` replaces its message."""
    whole = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"} | choice
    used = {"prompt_tokens": 11, "completion_tokens": 5} if usage is None else usage
    return {"choices": [whole], "usage": used}


async def connected(answer: Answer, *, transcript=None, **settings) -> ChatEngine:
    defaults = {"base_url": URL, "model": "policy", "backoff": 0.001, "retries": 3}
    engine = ChatEngine(
        ChatSettings(**(defaults | settings)),
        transcript=transcript,
        transport=httpx.MockTransport(answer),
    )
    await engine.start()
    return engine


async def answered(
    body: object, sampling: Sampling | None = None, *, tools=(), **settings
) -> tuple[Completion, dict[str, object]]:
    """What the engine makes of a reply, and what it had sent."""
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=body)

    engine = await connected(answer, **settings)
    ids = Transcript().prompt_ids(ASKED, tools)
    found = await engine.generate(ids, sampling or Sampling(max_tokens=9, seed=3))
    await engine.close()
    return found, seen[0]


def said(found: Completion) -> str:
    return Transcript().action_text(found.token_ids)


async def test_messages_go_out_and_text_and_counts_come_back():
    usage = {
        "prompt_tokens": 11, "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip
    found, sent = await answered(reply("é", usage=usage))
    assert sent == {
        "model": "policy",
        "messages": [{"role": "user", "content": "who?"}],
        "max_tokens": 9,
        "temperature": 1.0,
        "seed": 3,
    }
    assert found.token_ids.tolist() == [TEXT, 0xC3, 0xA9, END]
    assert (found.usage, found.prefilled_tokens) == ((11, 5), 7)
    assert found.generated_tokens == 5
    assert (found.entropy_kind, found.finish_reason) == ("none", "stop")
    assert np.isnan(found.logprobs).all()


async def test_sampling_and_settings_reach_the_server():
    asked = Sampling(
        temperature=0.5, top_p=0.9, top_k=7, max_tokens=8, stop=tuple("abcdef"), seed=1 << 40
    )
    _, sent = await answered(
        reply(),
        asked,
        tools=(SCHEMA,),
        max_tokens_field="max_completion_tokens",
        omit=("temperature",),
        extra={"reasoning_effort": "low", "seed": 5},
        top_logprobs=2,
    )
    assert sent["max_completion_tokens"] == 8
    assert "max_tokens" not in sent
    assert "temperature" not in sent
    assert (sent["top_p"], sent["top_k"], sent["reasoning_effort"]) == (0.9, 7, "low")
    assert sent["seed"] == 5
    assert sent["stop"] == ["a", "b", "c", "d"]
    assert sent["tools"] == [SCHEMA]
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)


async def test_tools_as_text_stand_in_the_system_message():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=reply())

    engine = await connected(answer, tools="text")
    await engine.generate(Transcript().prompt_ids(ASKED, (SCHEMA,)), Sampling())
    assert "tools" not in seen[0]
    assert "<tools>" in seen[0]["messages"][0]["content"]


async def test_a_reply_to_be_continued_says_so():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=reply(" b"))

    transcript = Transcript()
    engine = await connected(answer, inline="continue", transcript=transcript)
    prompt = transcript.prompt_ids(ASKED)
    action = transcript.action_ids("a")
    result = transcript.observation_ids((Message.of("inline", " r"),), action)
    await engine.generate(np.concatenate([prompt, action, result]), Sampling())
    assert seen[0]["messages"][-1] == {"role": "assistant", "content": "a r"}
    assert seen[0]["continue_final_message"] is True
    assert seen[0]["add_generation_prompt"] is False


async def test_native_calls_become_text_that_the_environment_parses_and_go_back_native():
    calls = [
        {"id": "x", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    found, _ = await answered(reply(message=message, finish_reason="tool_calls"), tools=(SCHEMA,))
    assert said(found) == '<tool_call>\n{"name": "search", "arguments": {"q": 1}}\n</tool_call>'
    transcript = Transcript()
    result = transcript.observation_ids((Message.of("tool", "found"),), found.token_ids)
    context = np.concatenate([transcript.prompt_ids(ASKED, (SCHEMA,)), found.token_ids, result])
    engine = await connected(lambda request: httpx.Response(200))
    sent = engine._body(context, Sampling())["messages"]
    assert sent[1]["tool_calls"][0]["function"] == calls[0]["function"]
    assert sent[2] == {
        "role": "tool", "tool_call_id": sent[1]["tool_calls"][0]["id"], "content": "found",
    }  # fmt: skip


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thoughts_are_recorded_and_not_played(field):
    message = {"role": "assistant", "content": "said", field: "because"}
    found, _ = await answered(reply(message=message))
    assert said(found) == "said"
    assert Transcript().decode(found.token_ids) == "<think>\nbecause\n</think>\n\nsaid<|end|>\n"


async def test_thoughts_that_used_up_the_limit_leave_an_empty_cut_action():
    message = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    found, _ = await answered(reply(message=message, finish_reason="length"))
    assert (said(found), found.finish_reason) == ("", "length")
    assert found.token_ids[-1] == CUT


async def test_a_refusal_and_what_a_filter_leaves_are_what_the_policy_said():
    refused = {"role": "assistant", "content": None, "refusal": "I cannot"}
    assert said((await answered(reply(message=refused)))[0]) == "I cannot"
    found, _ = await answered(reply("half", finish_reason="content_filter"))
    assert (said(found), found.finish_reason) == ("half", "stop")
    blank, _ = await answered(reply(None, finish_reason="content_filter"))
    assert said(blank) == ""


async def test_an_empty_reply_is_an_empty_action():
    found, _ = await answered(reply(""))
    assert (said(found), found.token_ids.tolist()) == ("", [TEXT, END])


async def test_the_stop_string_comes_back_as_the_server_names_it():
    stop = Sampling(stop=("</search>", "</answer>"))
    for named in ({"stop_reason": "</search>"}, {"matched_stop": "</search>"}, {}):
        found, _ = await answered(reply("<search>x", **named), stop)
        assert said(found) == "<search>x</search>"
    found, _ = await answered(reply("<search>x", stop_reason=None), stop)
    assert said(found) == "<search>x"


@pytest.mark.parametrize("usage", [{}, [], {"prompt_tokens": None}, {"completion_tokens": "7"}])
async def test_what_the_server_does_not_count_is_estimated_at_four_bytes(usage):
    body = reply("12345678", usage=usage)
    found, _ = await answered(body)
    prompt = len(Transcript().prompt_ids(ASKED))
    assert found.usage == (math.ceil(prompt / 4), math.ceil(10 / 4))


def token(text: str, logprob: float, *tops: float) -> dict[str, object]:
    top = [{"token": str(index), "logprob": one} for index, one in enumerate(tops)]
    return {
        "token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": top,
    }  # fmt: skip


async def test_logprobs_stand_at_the_first_byte_of_their_token():
    half = math.log(0.5)
    tokens = [token("ab", half, half, math.log(0.25)), token("é", -2.0, half, half)]
    found, _ = await answered(reply("abé", logprobs={"content": tokens}), top_logprobs=2)
    assert found.entropy_kind == "top_k"
    np.testing.assert_allclose(found.logprobs, [0, half, 0, -2.0, 0, 0], rtol=1e-6)
    # 0.5, 0.25 and 0.25 of everything else; then two halves
    np.testing.assert_allclose(
        found.entropies, [0, 1.5 * math.log(2), 0, math.log(2), 0, 0], rtol=1e-6, atol=1e-9
    )


async def test_logprobs_may_go_on_with_the_stop_string_and_the_end():
    tokens = [token("<a>b", -1.0, -1.0), token("</a>", -2.0, -1.0), token("<end>", -3.0, -1.0)]
    body = reply("<a>b", logprobs={"content": tokens}, stop_reason="</a>")
    found, _ = await answered(body, Sampling(stop=("</a>",)), top_logprobs=1)
    assert found.entropy_kind == "top_k"
    assert found.logprobs.tolist() == [0, -1, 0, 0, 0, -2, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "tokens", [[], [token("other", -1.0)], [token("a", -1.0)], None, "no list"]
)
async def test_logprobs_of_other_bytes_are_none(tokens):
    found, _ = await answered(reply("ab", logprobs={"content": tokens}), top_logprobs=2)
    assert found.entropy_kind == "none"
    assert np.isnan(found.logprobs).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "busy"}, "needs choices, the server sent .*busy"),
        ({"choices": []}, "needs choices"),
        ({"choices": None}, "needs choices"),
        ({"choices": ["x"]}, "needs choices, .*'x'"),
        ({"choices": [{"text": "old"}]}, "needs a message, the server sent .*old"),
        (reply(finish_reason=None), "ended with None, not by itself or a limit: .*me"),
        (reply(finish_reason="abort"), "ended with 'abort'"),
        (reply(None), "without content: the server sent .*None"),
        (reply(5), "neither text nor parts, the server sent .*5"),
        (reply(message={"content": "", "tool_calls": [{"id": "x"}]}), "needs a function's name"),
        (reply(logprobs={"content": [{"token": "x"}]}), "needs a log-probability"),
        (reply(logprobs={"content": [5]}), "needs a log-probability"),
        (
            reply(logprobs={"content": [{"token": "x", "logprob": -1, "bytes": [999]}]}),
            "needs a log-probability",
        ),
        (
            reply(logprobs={"content": [{"token": "x", "logprob": -1, "top_logprobs": [5]}]}),
            "needs a log-probability",
        ),
    ],
)
async def test_a_malformed_reply_is_an_engine_error_that_quotes_it(body, message):
    with pytest.raises(EngineError, match=message):
        await answered(body)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>gateway</html>", "failed 4 times; the last time: .*no JSON: '<html>gateway"),
        (json.dumps(reply()).encode()[:-20], 'failed 4 times.*no JSON: \'{"choices"'),
        (b"", "failed 4 times.*no JSON: ''"),
        (b"[1]", r"failed 4 times.*answered list, not an object: \[1\]"),
        (b'{"error": {"code": 502, "message": "down"}}', "failed 4 times.*'down'"),
        (b"\xff\xfe{", "failed 4 times.*no JSON"),
    ],
)
async def test_what_is_no_reply_is_asked_for_again_and_then_quoted(content, message):
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        return httpx.Response(200, content=content)

    engine = await connected(answer)
    with pytest.raises(EngineError, match=message):
        await engine.generate(Transcript().prompt_ids(ASKED), Sampling())
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("said_by_server", "hint"),
    [
        ("Use 'max_completion_tokens' instead.", "max_tokens_field to max_completion_tokens"),
        ("Unsupported value: 'temperature'", r"engine\.omit: \[temperature\]"),
        ("tool choice requires --enable-auto-tool-choice", "engine.tools: text"),
        ("you are wrong", "'you are wrong'$"),
    ],
)
async def test_a_refusal_of_the_server_says_which_setting_helps(said_by_server, hint):
    engine = await connected(lambda request: httpx.Response(400, text=said_by_server))
    with pytest.raises(EngineError, match=hint):
        await engine.generate(Transcript().prompt_ids(ASKED, (SCHEMA,)), Sampling())


async def test_a_reply_longer_than_any_context_is_asked_for_shorter_twice():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["max_tokens"])
        if len(seen) == 1:
            text = "max_tokens=5000 cannot be greater than max_model_len=2048."
            return httpx.Response(400, text=text)
        if len(seen) == 2:
            text = "maximum context length is 2048 tokens, your prompt has 40 input tokens"
            return httpx.Response(400, text=text)
        return httpx.Response(200, json=reply())

    engine = await connected(answer)
    await engine.generate(Transcript().prompt_ids(ASKED), Sampling(max_tokens=5000))
    assert seen == [5000, 2048 - 2, 2048 - 40]


async def test_a_reply_too_long_for_the_context_is_asked_for_shorter():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["max_tokens"])
        if len(seen) == 1:
            return httpx.Response(
                400,
                text="This model's maximum context length is 100 tokens. However, you requested "
                "120 tokens (70 in the messages, 50 in the completion).",
            )
        return httpx.Response(200, json=reply())

    engine = await connected(answer)
    await engine.generate(Transcript().prompt_ids(ASKED), Sampling(max_tokens=50))
    assert seen == [50, 30]


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 64 tokens. However, your prompt contains at least "
        "65 input tokens, which exceeds this limit even without any output tokens.",
        '{"error": {"code": "context_length_exceeded"}}',
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
async def test_a_full_context_is_an_error_of_its_own(text):
    engine = await connected(lambda request: httpx.Response(400, text=text))
    with pytest.raises(ContextLengthError, match="takes no longer context"):
        await engine.generate(Transcript().prompt_ids(ASKED), Sampling())


async def test_images_of_the_transcript_are_sent():
    transcript = Transcript(ImageStore())
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=reply())

    engine = await connected(answer, transcript=transcript)
    shown = (Message("user", (Image("image/png", b"p"),)),)
    await engine.generate(transcript.prompt_ids(shown), Sampling())
    (part,) = seen[0]["messages"][0]["content"]
    assert part["image_url"]["url"] == "data:image/png;base64,cA=="


async def test_a_hanging_request_is_given_up_and_sent_again():
    calls = []

    async def answer(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) < 3:
            await asyncio.sleep(60)
        return httpx.Response(200, json=reply())

    engine = await connected(answer, timeout=0.05)
    found = await engine.generate(Transcript().prompt_ids(ASKED), Sampling())
    assert (said(found), len(calls)) == ("me", 3)


async def test_one_that_always_hangs_is_a_typed_failure():
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200)

    engine = await connected(answer, timeout=0.02, retries=1)
    with pytest.raises(
        EngineError, match=r"failed 2 times; the last time: no answer within 0.02 s"
    ):
        await engine.generate(Transcript().prompt_ids(ASKED), Sampling())


async def test_being_asked_too_often_is_no_failure_but_patience_ends():
    left = [429] * 9 + [200]

    def answer(request: httpx.Request) -> httpx.Response:
        status = left.pop(0)
        return httpx.Response(status, json=reply(), headers={"retry-after": "0"})

    engine = await connected(answer, retries=0)
    assert said(await engine.generate(Transcript().prompt_ids(ASKED), Sampling())) == "me"
    impatient = await connected(
        lambda request: httpx.Response(429, headers={"retry-after": "9"}, text="slow down"),
        patience=1.0,
    )
    with pytest.raises(EngineError, match="failed 1 times; the last time: HTTP 429: 'slow down'"):
        await impatient.generate(Transcript().prompt_ids(ASKED), Sampling())


async def test_a_retry_after_holds_back_every_request():
    loop = asyncio.get_running_loop()
    times = []

    def answer(request: httpx.Request) -> httpx.Response:
        times.append(loop.time())
        if len(times) == 1:
            return httpx.Response(429, headers={"retry-after": "0.2"})
        return httpx.Response(200, json=reply())

    engine = await connected(answer, concurrency=1)
    ids = Transcript().prompt_ids(ASKED)
    first = asyncio.create_task(engine.generate(ids, Sampling()))
    await asyncio.sleep(0.01)
    await asyncio.gather(first, engine.generate(ids, Sampling()))
    assert len(times) == 3
    assert min(times[1:]) - times[0] >= 0.19


async def test_who_is_admitted_does_not_wait_again_and_the_slot_is_given_back():
    engine = await connected(lambda request: httpx.Response(200, json=reply()), concurrency=1)
    assert isinstance(engine, Paced)
    assert isinstance(engine, Engine)
    ids = Transcript().prompt_ids(ASKED)
    for _ in range(3):
        async with engine.admission(ids, Sampling()):
            await asyncio.wait_for(asyncio.create_task(engine.generate(ids, Sampling())), timeout=5)
    with pytest.raises(ZeroDivisionError):
        async with engine.admission(ids, Sampling()):
            raise ZeroDivisionError
    await asyncio.wait_for(engine.generate(ids, Sampling()), timeout=5)


async def test_every_request_is_counted_the_shorter_one_after_a_refusal_too():
    replies = [
        httpx.Response(400, text="maximum context length is 9 tokens, not 7 in the messages"),
        httpx.Response(200, json=reply()),
        httpx.Response(503),
        httpx.Response(200, json=reply()),
    ]
    engine = await connected(lambda request: replies.pop(0), requests_per_minute=4)
    ids = Transcript().prompt_ids(ASKED)
    await engine.generate(ids, Sampling())
    await engine.generate(ids, Sampling())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.generate(ids, Sampling()), timeout=0.1)
    assert replies == []


async def test_a_chat_server_cannot_be_trained_or_score(tmp_path: Path):
    engine = build(ChatSettings(base_url=URL), "")
    with pytest.raises(EngineError, match="call start"):
        await engine.generate(Transcript().prompt_ids(ASKED), Sampling())
    with pytest.raises(EngineError, match="cannot be trained"):
        await engine.load(tmp_path, 1)
    with pytest.raises(EngineError, match="cannot score"):
        await engine.score([1, 2])
    await engine.close()
    assert engine.version == 0


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(ValueError, match="starts with http:// or https://, got 'host/v1'"):
        ChatSettings(base_url="host/v1")

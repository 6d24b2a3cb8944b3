"""The wire: records survive it, and what is not the language is refused."""

import json
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.adapters.wire import (
    FrameError,
    FrameReader,
    check_plain,
    decode_observation,
    decode_step,
    decode_task,
    encode_frame,
    encode_observation,
    encode_step,
    encode_task,
)
from agentrl.core.env import StepInfo, StepResult
from agentrl.core.types import Image, Message, Task, Text, ToolRecord

FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
PARTS = st.builds(Text, TEXTS) | st.builds(Image, TEXTS, st.binary(max_size=20))
MESSAGES = st.builds(Message, TEXTS, st.lists(PARTS, max_size=3).map(tuple))
OBSERVATIONS = st.lists(MESSAGES, max_size=3).map(tuple)
NUMBERS = st.dictionaries(TEXTS, FLOATS, max_size=3)
CALLS = st.builds(
    ToolRecord, TEXTS, st.dictionaries(TEXTS, JSON, max_size=2), st.booleans(), FLOATS
)
INFOS = st.builds(
    StepInfo,
    rewards=NUMBERS,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    malformed_calls=st.integers(0, 9),
    state_key=TEXTS,
    metrics=NUMBERS,
)
STEPS = st.builds(StepResult, OBSERVATIONS, FLOATS, st.booleans(), st.booleans(), INFOS)


def travel(value):
    (message,) = FrameReader().feed(encode_frame([(1, value)]))
    return message[1]


@settings(max_examples=40)
@given(STEPS)
def test_a_step_survives_the_wire(result):
    assert decode_step(travel(encode_step(result))) == result


@settings(max_examples=40)
@given(OBSERVATIONS)
def test_an_observation_survives_the_wire(observation):
    assert decode_observation(travel(encode_observation(observation))) == observation


@settings(max_examples=40)
@given(TEXTS, st.dictionaries(TEXTS, JSON, max_size=3))
def test_a_task_survives_the_wire(name, data):
    assert decode_task(travel(encode_task(Task(name, data)))) == Task(name, data)


@settings(max_examples=40)
@given(st.lists(st.lists(JSON, min_size=1, max_size=3), max_size=6), st.data())
def test_frames_survive_any_cut_of_the_stream(messages, data):
    stream = b"".join([encode_frame([message]) for message in messages])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    reader = FrameReader()
    seen = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        seen += reader.feed(stream[start:end])
    assert seen == messages


@settings(max_examples=40)
@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader_other_than_by_a_frame_error(data):
    try:
        messages = FrameReader().feed(data)
    except FrameError:
        return
    assert all(isinstance(message, list) and message for message in messages)


@settings(max_examples=40)
@given(JSON)
def test_no_json_breaks_a_decoder_other_than_by_a_frame_error(value):
    value = json.loads(json.dumps(value))
    for decode in (decode_step, decode_observation, decode_task):
        try:
            again = decode(value)
        except FrameError:
            continue
        assert isinstance(again, (StepResult, tuple, Task))


def test_numbers_that_json_has_no_word_for_survive():
    result = StepResult((), math.inf, True, False, StepInfo(metrics={"a": math.nan}))
    back = decode_step(travel(encode_step(result)))
    assert back.reward == math.inf
    assert math.isnan(back.info.metrics["a"])


def test_a_long_frame_is_refused_before_its_body_comes():
    with pytest.raises(FrameError, match=r"announces 65 bytes, the limit is 64"):
        FrameReader(max_bytes=64).feed(struct.pack(">I", 65))
    with pytest.raises(FrameError, match="passes the limit"):
        encode_frame([("x" * 100,)], max_bytes=64)


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"[[]]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_list_of_messages_is_refused(body):
    with pytest.raises(FrameError):
        FrameReader().feed(struct.pack(">I", len(body)) + body)


def test_what_json_would_change_is_refused_by_name():
    with pytest.raises(FrameError, match=r"data\.hops\[1\] has the key 3 of type int"):
        check_plain({"hops": [{}, {3: "x"}]}, where="data")
    with pytest.raises(FrameError, match=r"data\.when is a bytes"):
        check_plain({"when": b""}, where="data")
    with pytest.raises(FrameError, match="cannot travel"):
        encode_frame([(object(),)])

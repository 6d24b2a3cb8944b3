"""Messages to tokens, against whole renderings; templates that keep and that rewrite history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_fakes import CHATML, FORGETFUL, MINIMAL, ids_of, tokenizer

from agentrl.core.errors import ContractError, SetupError
from agentrl.core.types import Image, Message
from agentrl.rollout.render import Renderer


def rendered(template, *messages, generation=True):
    """The slow way: the whole conversation through the template."""
    turns = [{"role": m.role, "content": m.text} for m in messages]
    return tokenizer(template).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=generation
    )


USER, ACTION = Message.of("user", "what?"), "a thought"


def test_a_prompt_is_the_template_with_its_generation_prompt_and_tools():
    renderer = Renderer(tokenizer())
    assert renderer.decode(renderer.prompt_ids((USER,))) == rendered(CHATML, USER)
    schema = {"name": "search", "description": "é"}
    text = renderer.decode(renderer.prompt_ids((USER,), (schema,)))
    assert text.startswith("<|im_start|>system\nTools:{") and '"search"' in text


def test_inline_messages_skip_the_template():
    renderer = Renderer(tokenizer())
    raw = Message.of("inline", "Question: 1+1?\nAnswer:")
    assert renderer.prompt_ids((raw,)).tolist() == ids_of("Question: 1+1?\nAnswer:")
    started = renderer.prompt_ids((USER, Message.of("inline", "<search>")))
    assert renderer.decode(started) == rendered(CHATML, USER) + "<search>"
    with pytest.raises(ContractError, match="stand after the others"):
        renderer.prompt_ids((raw, USER))


def test_inline_observations_continue_the_turn_verbatim():
    renderer = Renderer(tokenizer())
    action = ids_of("<search>x</search>")
    inline = Message.of("inline", "<result> Ümlaut </result>")
    assert renderer.observation_ids((inline,), action).tolist() == ids_of(
        "<result> Ümlaut </result>"
    )
    both = renderer.observation_ids((inline, USER), action)
    assert renderer.decode(both) == "<result> Ümlaut </result>" + (
        "<|im_end|>\n<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(renderer.observation_ids((), action)) == 0


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\u27e6\u27e7"), max_size=12
) | st.sampled_from(["", " ", " x ", "\n", "{{ x }}", "<search>", "a\n\n", "é"])


@settings(max_examples=80, deadline=None)
@given(
    template=st.sampled_from([CHATML, FORGETFUL, MINIMAL]),
    said=st.lists(
        st.tuples(st.sampled_from(["user", "tool", "system"]), TEXTS), min_size=1, max_size=3
    ),
    ended=st.booleans(),
)
def test_appended_tokens_are_what_the_template_adds_after_the_turn(template, said, ended):
    renderer = Renderer(tokenizer(template))
    observation = tuple(Message.of(role, text) for role, text in said)
    whole = rendered(template, USER, Message.of("assistant", ACTION), *observation)
    before = whole[: whole.index(ACTION) + len(ACTION)]
    action = ids_of(ACTION)
    if ended and template != MINIMAL:
        action += ids_of("<|im_end|>")
        before += "<|im_end|>"
    added = renderer.observation_ids(observation, action)
    assert added.tolist() == ids_of(whole[len(before) :], template)


def test_many_turns_equal_the_whole_rendering_where_the_template_keeps_history():
    renderer = Renderer(tokenizer())
    ids = renderer.prompt_ids((USER,)).tolist()
    messages = [USER]
    for turn in range(5):
        action = ids_of(f"action {turn}<|im_end|>")
        observation = Message.of("user", f" count {turn}\n")
        ids += action + renderer.observation_ids((observation,), action).tolist()
        messages += [Message.of("assistant", f"action {turn}"), observation]
    assert renderer.decode(ids) == rendered(CHATML, *messages)


def test_templates_that_rewrite_history_are_found_and_only_appended_to():
    assert not Renderer(tokenizer()).rewrites_history
    assert not Renderer(tokenizer(MINIMAL)).rewrites_history
    renderer = Renderer(tokenizer(FORGETFUL))
    assert renderer.rewrites_history
    action = ids_of("<think>\nlong\n</think>\n\nsaid<|im_end|>")
    added = renderer.observation_ids((USER,), action)
    assert renderer.decode(added) == (
        "\n<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_several_tool_results_share_a_turn_where_the_template_says_so():
    renderer = Renderer(tokenizer(FORGETFUL))
    results = (Message.of("tool", "one"), Message.of("tool", "two"))
    assert (
        renderer.decode(renderer.observation_ids(results, ids_of("x"))).count("<|im_start|>") == 2
    )


def test_the_policys_text_lacks_only_the_token_that_ended_its_turn():
    renderer = Renderer(tokenizer())
    for text, said in (
        ("<search>x</search>", "<search>x</search>"),
        ("hi<|im_end|>", "hi"),
        ("hi<|eot|>", "hi"),
        ("<|im_end|> é<|im_end|>", "<|im_end|> é"),
    ):
        assert renderer.action_text(np.asarray(ids_of(text), np.int32)) == said


def test_stop_strings_that_are_added_tokens_become_stop_tokens():
    renderer = Renderer(tokenizer())
    rule = renderer.stop_for(("</search>", "</answer>", "ab"))
    assert rule.strings == ("</answer>", "ab")
    ends = {ids_of(mark)[0] for mark in ("</search>", "<|im_end|>", "<|eot|>")}
    assert set(rule.token_ids) == ends


def test_what_cannot_be_rendered_is_named():
    bare = Renderer(tokenizer(None))
    with pytest.raises(SetupError, match="no chat template"):
        bare.prompt_ids((USER,))
    assert bare.prompt_ids((Message.of("inline", "raw"),)).tolist() == ids_of("raw", None)
    picture = Message("user", (Image("image/png", b""),))
    with pytest.raises(ContractError, match="holds an image"):
        Renderer(tokenizer()).prompt_ids((picture,))
    strict = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(SetupError, match=r"roles user, assistant, tool: .*no tools"):
        Renderer(tokenizer(strict)).observation_ids((Message.of("tool", "x"),), ids_of("y"))
    with pytest.raises(SetupError, match="not a fast tokenizer"):
        Renderer(object())

"""The small policy and its tokenizer."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from transformers import PreTrainedTokenizerFast

from agentrl.models import tiny

TEXTS = ["The capital of France is Paris.", "What is the population of the capital of Peru?"] * 20


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.build_tokenizer(TEXTS, vocab_size=400)


@pytest.mark.parametrize(
    "text",
    [
        "<search>capital of France</search>",
        "<result>The capital of France is Paris.</result><answer> Paris</answer>",
        "Zürich, 東京 🙂\n\tx  y",
        "2,138,551",
    ],
)
def test_any_text_survives_encoding_and_decoding(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_tag_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for tag in tiny.TAGS:
        assert len(tokenizer.encode(tag, add_special_tokens=False)) == 1
        assert (
            tokenizer.decode(tokenizer.encode(f"x{tag}y", add_special_tokens=False)) == f"x{tag}y"
        )


def test_a_saved_policy_loads_as_it_was(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny.build_policy(
        len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        width=64,
        layers=2,
    )
    tiny.save_policy(tmp_path, model, tokenizer)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    same = AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode("The capital of France")])
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert same.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    prompt = [{"role": "user", "content": "Who?"}]
    rendered = same.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    assert rendered == "<|user|> Who?<|end|><|assistant|>"


def test_a_policy_is_the_same_for_the_same_seed() -> None:
    import torch

    def first(seed: int) -> torch.Tensor:
        model = tiny.build_policy(64, eos_token_id=1, pad_token_id=0, width=64, layers=1, seed=seed)
        return next(model.parameters())

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))

"""A small decoder and a tokenizer of its own, built without a model hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

END = "<|end|>"
PAD = "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TAGS = (
    "<think>",
    "</think>",
    "<search>",
    "</search>",
    "<answer>",
    "</answer>",
    "<result>",
    "</result>",
)
"""Marks of the search format, each one token that stays visible in decoded text."""

# The space before the content makes a word at the start of a message the same token as elsewhere.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|> {{ message['content'] | trim }}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 768, tags: Sequence[str] = TAGS
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`; any text survives encoding and decoding.

    Digits stand alone, and each of `tags` is one token that `decode` keeps.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    reserved = [PAD, END, *ROLES]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(tags),
        special_tokens=reserved,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_policy(
    vocab_size: int,
    *,
    eos_token_id: int,
    pad_token_id: int,
    width: int = 128,
    layers: int = 3,
    seed: int = 0,
) -> Qwen3ForCausalLM:
    """A Qwen3 decoder with random weights drawn from `seed`: 0.7 million parameters by default.

    Embeddings are not tied: an engine may pack its output projection apart and fail to reload it.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        attention_dropout=0.0,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def save_policy(
    folder: str | Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write both in the layout of the model hubs: config, safetensors and tokenizer files."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

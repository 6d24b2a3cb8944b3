"""What an engine asks of a tokenizer, and stop strings looked for in sampled tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from agentrl.core.errors import EngineError, SetupError


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that engines use."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Token ids of `text`."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str:
        """Text of `token_ids`."""
        ...

    def __len__(self) -> int:
        """Size of the vocabulary, added tokens included."""
        ...


def load_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a folder or hub repository.

    Raises:
        SetupError: transformers is not installed.
        EngineError: there is no tokenizer at `model`.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise SetupError(
            f"a tokenizer needs transformers ({error}); `pip install 'agentrl[train]'`"
        ) from error
    try:
        return cast(Tokenizer, AutoTokenizer.from_pretrained(model))
    except (OSError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise EngineError(
            f"no tokenizer at {model!r}: {said} Without the hub, name a folder that holds one, "
            "or a built-in policy (policy.model=tiny/search), which is enough for a dry run."
        ) from error


def stop_string(tokenizer: Tokenizer, token_ids: Sequence[int], stop: Sequence[str]) -> str | None:
    """The first of `stop` whose last character came with the last of `token_ids`, or None.

    Only as many tokens are decoded as the longest stop string can span: each of its bytes one.
    """
    if not stop or not token_ids:
        return None
    window = max(len(one.encode()) for one in stop) + 4
    text = tokenizer.decode(token_ids[-window:], skip_special_tokens=False)
    return next((one for one in stop if one in text), None)

"""What each token of a policy's vocabulary reads as."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Piece: TypeAlias = str | list[int]
"""A token's text, or its bytes where they are no whole characters."""


class Vocabulary:
    """The tokenizer of a policy, as far as reading goes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
        self._bytes = _byte_alphabet() if "ByteLevel" in json.dumps(decoder) else {}
        self._added = {
            id_: added.content for id_, added in tokenizer.get_added_tokens_decoder().items()
        }
        # Decoders trim white space at the start of a text, so a token is read after this one.
        plain = (id_ for id_ in range(len(self)) if id_ not in self._added)
        self._anchor = next(([id_] for id_ in plain if self._text([id_]).strip()), [])
        self._anchored = self._text(self._anchor)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    @property
    def special(self) -> list[str]:
        """Texts of the added tokens, longest first."""
        return sorted(set(self._added.values()), key=lambda text: (-len(text), text))

    def texts(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids, special tokens included."""
        lists = [list(ids) for ids in sequences]
        return list(self._tokenizer.decode_batch(lists, skip_special_tokens=False))

    def piece(self, id_: int) -> Piece:
        """What token `id_` reads as."""
        if id_ in self._added:
            return self._added[id_]
        token = self._tokenizer.id_to_token(id_)
        if token is None:
            return f"<{id_}?>"
        if self._bytes and all(char in self._bytes for char in token):
            return _characters(bytes(self._bytes[char] for char in token))
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return _characters(bytes([int(token[3:5], 16)]))
        return self._text([*self._anchor, id_]).removeprefix(self._anchored)

    def pieces(self, ids: Iterable[int]) -> dict[str, Piece]:
        """The pieces of `ids`, by id."""
        return {str(id_): self.piece(id_) for id_ in sorted(ids)}


def open_vocabulary(model: str) -> Vocabulary | None:
    """The tokenizer in a folder, of a built-in model or in the local cache of the model hub.

    None where there is none on this machine; nothing is fetched.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    path = _tokenizer_file(model)
    if path is None:
        return None
    try:
        return Vocabulary(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare exceptions on files of another kind
        if isinstance(error, (MemoryError, RecursionError)):
            raise
        return None


def _tokenizer_file(model: str) -> Path | None:
    from agentrl.core.errors import RecipeError
    from agentrl.recipe.models import resolve_model

    if not model:
        return None
    try:
        found = Path(resolve_model(model)) / "tokenizer.json"
    except RecipeError:
        found = Path(model).expanduser() / "tokenizer.json"
    if found.is_file():
        return found
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        cached = try_to_load_from_cache(model, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _characters(raw: bytes) -> Piece:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _byte_alphabet() -> dict[str, int]:
    """The byte that each printable character stands for in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}

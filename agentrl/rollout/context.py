"""The growing token list of one line: what the policy saw, never encoded twice."""

from __future__ import annotations

from typing import Self

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Int32


class Context:
    """Tokens (T,) in one buffer with room at its end, so that a turn costs only its own tokens."""

    __slots__ = ("_buffer", "_length")

    def __init__(self, prompt: Int32) -> None:
        self._buffer = np.empty(2 * len(prompt) + 256, np.int32)
        self._length = len(prompt)
        self._buffer[: self._length] = prompt

    def __len__(self) -> int:
        """Tokens so far."""
        return self._length

    @property
    def ids(self) -> Int32:
        """All tokens (T,): a read-only view, which later appends leave as it is."""
        view = self._buffer[: self._length]
        view.flags.writeable = False
        return view

    def append(self, token_ids: Int32) -> None:
        """Add `token_ids` at the end."""
        end = self._length + len(token_ids)
        if end > len(self._buffer):
            grown = np.empty(2 * end, np.int32)
            grown[: self._length] = self._buffer[: self._length]
            self._buffer = grown
        self._buffer[self._length : end] = token_ids
        self._length = end

    def copy(self) -> Self:
        """The same tokens in a buffer of its own."""
        return type(self)(self.ids)

    def check(self, expected: int, *tail: Int32) -> None:
        """Raise `ContractError` unless there are `expected` tokens and the last are `tail`'s.

        With `tail` the last action and its observation, checked every turn, this is the invariant
        that a prompt is the last prompt, action and observation, at a cost that does not grow
        with the context.
        """
        end = self._length
        same = end == expected
        for ids in reversed(tail):
            start = end - len(ids)
            same = same and start >= 0 and np.array_equal(self._buffer[start:end], ids)
            end = start
        if not same:
            raise ContractError(
                f"a context of {self._length} tokens ({expected} expected) does not end in the "
                "last action and observation: tokens that were sampled have changed, for instance "
                "because an engine wrote into an array that it had returned"
            )

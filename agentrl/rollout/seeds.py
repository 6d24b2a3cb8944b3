"""Random streams by name: a seed for every (run, group, line, turn), whatever finishes first."""

from __future__ import annotations

from hashlib import blake2b


def derive(seed: int, *path: int | str) -> int:
    """A seed below 2**31 (every library takes it) for the stream `path` under `seed`.

    A hash: equal arguments give equal seeds on every machine, and 1 differs from "1".
    """
    digest = blake2b(repr((seed, path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x7FFF_FFFF

from __future__ import annotations

import os
import time

import pytest

from agentrl.tools.disk_cache import DiskCache


def test_what_was_put_is_there_for_the_next_process_too(tmp_path):
    DiskCache(tmp_path).put("a key\n", b"\x00value\n")
    cache = DiskCache(tmp_path)
    assert cache.get("a key\n") == b"\x00value\n" and cache.get("another") is None
    cache.put("a key\n", b"new")
    assert cache.get("a key\n") == b"new"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"{", lambda b: b"", lambda b: b"[]\nx"]
)
def test_a_damaged_file_counts_as_absent_and_is_written_anew(tmp_path, damage):
    cache = DiskCache(tmp_path)
    cache.put("k", b"value")
    (path,) = tmp_path.glob("??/*")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("k") is None
    cache.put("k", b"value")
    assert cache.get("k") == b"value"


def test_old_values_are_forgotten_and_the_oldest_make_room(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path, max_age=60, max_mb=1)
    for n in range(12):
        cache.put(f"k{n}", bytes(100_000))
        path = cache._path(f"k{n}")
        os.utime(path, (n, n))
    kept = [n for n in range(12) if cache.get(f"k{n}") is not None]
    assert kept == list(range(12 - len(kept), 12)) and 7 <= len(kept) <= 10
    assert not list(tmp_path.glob("??/.*")), "nothing half-written stays"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert cache.get("k11") is None

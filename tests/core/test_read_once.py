"""Files that are read once for each of their versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrl.core.datasets import HUB, read_once


def test_a_file_is_read_again_only_when_it_was_written_anew(tmp_path: Path) -> None:
    read = []

    @read_once
    def words(source: str, *, most: int = 9) -> list[str]:
        read.append((source, most))
        return Path(source).read_text().split()[:most]

    path = tmp_path / "words.txt"
    path.write_text("a b")
    assert words(str(path)) is words(str(path)) and read == [(str(path), 9)]
    assert words(str(path), most=1) == ["a"] and len(read) == 2
    path.write_text("a b c")
    assert words(str(path)) == ["a", "b", "c"]
    # As long as before, and written later.
    path.write_text("x y z")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert words(str(path)) == ["x", "y", "z"]
    missing = str(tmp_path / "none.txt")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            words(missing)
    assert [one for one, _ in read].count(missing) == 2, "a failure is not kept"


def test_a_hub_s_data_set_is_read_once() -> None:
    read = []
    once = read_once(lambda source: read.append(source) or len(read))
    assert [once(f"{HUB}a/b"), once(f"{HUB}a/b"), once(f"{HUB}a/c")] == [1, 1, 2]

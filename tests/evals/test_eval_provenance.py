"""Results say what produced them, in how many sittings, and tell no secret."""

import json
import os
import re

import pytest

from agentrl.core.errors import DataError
from agentrl.evals.provenance import Sitting, Sittings, commit, provenance, without_secrets


def test_sittings_are_counted_and_a_killed_one_ends_with_its_last_sample(tmp_path):
    path, samples = tmp_path / "sittings.jsonl", tmp_path / "samples.jsonl"
    killed = Sittings(path, samples=samples)
    killed.begin("agentrl eval quiz")
    started = killed.found[0].started
    samples.touch()
    after = samples.stat().st_mtime + 100
    os.utime(samples, (after, after))
    second = Sittings(path, samples=samples)
    assert 99 < second.found[0].seconds < 102
    second.begin("agentrl eval --resume --out x")
    second.end()
    found = provenance(Sittings(path, samples=samples).found)
    assert (found.sittings, found.command, found.started) == (2, "agentrl eval quiz", started)
    assert 99 < found.seconds < 102 and found.ended >= found.started
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found.started)


def test_versions_stand_in_it():
    found = provenance([Sitting(started="2026-01-01T00:00:00+00:00")], rescored="by hand")
    assert found.agentrl and found.python.startswith("3.") and found.platform
    assert {"numpy", "pydantic", "httpx"} <= found.packages.keys()
    assert found.commit == commit() and re.fullmatch(r"([0-9a-f]{40}(\+changes)?)?", found.commit)
    assert found.rescored == "by hand" and found.sittings == 1
    assert provenance([]).sittings == 1


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("agentrl eval a --policy https://me:pw@host/v1", "agentrl eval a --policy https://...@host/v1"),
        ("agentrl eval a engine.api_key=sk-123", "agentrl eval a engine.api_key=..."),
        ("agentrl eval a --policy sk-abcdefghijklmnop1234", "agentrl eval a --policy ..."),
        (
            "agentrl eval a engine.api_key_env=MY_KEY --tokenizer x/y",
            "agentrl eval a engine.api_key_env=MY_KEY --tokenizer x/y",
        ),
    ],
)  # fmt: skip
def test_no_secret_is_written_down(command, shown):
    assert without_secrets(command) == shown


def test_a_broken_list_of_sittings_is_named(tmp_path):
    path = tmp_path / "sittings.jsonl"
    path.write_text(json.dumps({"begun": "x"}) + "\n")
    with pytest.raises(DataError, match=r"sittings.jsonl: no list of sittings"):
        Sittings(path, samples=tmp_path / "samples.jsonl")

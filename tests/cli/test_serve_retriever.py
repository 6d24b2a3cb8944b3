"""`agentrl serve retriever`, started for real and asked by our own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app as whole_app
from agentrl.cli.serve import app
from agentrl.core.errors import DataError
from agentrl.envs.search.retriever import HttpRetriever
from agentrl.envs.search.storage import load_index


def write_corpus(path: Path) -> Path:
    rows = [{"id": f"p{n}", "contents": f'"Page {n}"\nsubject {n} of {n % 5}'} for n in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


async def ask(url: str, queries: list[str]) -> list[list[object]]:
    retriever = HttpRetriever(url)
    try:
        found = await asyncio.gather(*(retriever.search(query, 4) for query in queries))
    finally:
        await retriever.close()
    return [list(hits) for hits in found]


@pytest.mark.slow
def test_a_served_corpus_answers_as_the_index_in_process(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    code = "from agentrl.cli.serve import app; app()"
    arguments = [
        "retriever",
        "--corpus",
        str(corpus),
        "--port",
        "0",
        "--index",
        str(tmp_path / "i"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
            line = process.stderr.readline()
            assert line, f"the server ended: {said}"
            said += line
        assert "50 passages indexed" in said
        queries = [f"subject {n}" for n in range(30)] + ["", "zebra"]
        expected = load_index(corpus).search(queries, 4)
        assert asyncio.run(ask(found[0], queries)) == expected
    finally:
        process.terminate()
        process.wait(10)
    assert (tmp_path / "i" / "meta.json").exists()


def test_a_missing_corpus_is_an_error_before_anything_listens(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["retriever", "--corpus", str(tmp_path / "no.jsonl")])
    assert isinstance(result.exception, DataError)
    assert "there is no such corpus" in str(result.exception)


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--topk", "0"], ["--b", "1.5"]])
def test_settings_out_of_range_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["retriever", "--corpus", "x", *arguments])
    assert result.exit_code == 2
    assert re.search(r"(less|greater) than or equal to", result.output)


def test_a_taken_port_is_said_before_the_corpus_is_read(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["serve", "retriever", "--corpus", str(tmp_path / "none"), "--port", port]
        result = CliRunner().invoke(whole_app, arguments)
    assert result.exit_code == 2
    assert result.stderr == (
        f"cannot listen on 127.0.0.1:{port}: address already in use; name another --port "
        "(0 takes a free one) or --host\n"
    )


def test_an_encoder_is_given_where_it_is_used_and_nowhere_else(tmp_path: Path) -> None:
    corpus = str(write_corpus(tmp_path / "corpus.jsonl"))
    run = CliRunner()
    for extra, said in (
        (["--encoder", "e"], "--retrieval bm25 has no use for --encoder e"),
        (["--retrieval", "hybrid"], "--retrieval hybrid needs --encoder"),
    ):
        done = run.invoke(whole_app, ["serve", "retriever", "--corpus", corpus, *extra])
        assert done.exit_code == 2 and said in done.stderr

"""`mcp/tasks`: questions that are answered with the tools of MCP servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agentrl.core.errors import DataError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.mcp.warehouse import ITEMS, stock
from agentrl.testing import check_env

ODD = str(Path(__file__).parents[1] / "tools" / "mcp_odd_server.py")
SERVERS = [{"command": sys.executable, "args": ["-P", ODD]}]


def rows(path: Path, *lines: object) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_the_built_in_questions_are_split_and_have_one_answer_each() -> None:
    env = make_env("mcp/tasks")
    train, held_out = env.tasks("train"), env.tasks("eval")
    assert sorted(task.data["item"] for task in (*train, *held_out)) == sorted(ITEMS)
    assert train[0].data["answers"] == [str(stock()["anchor"][1])]


def test_rows_become_tasks(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "q.jsonl",
        {"question": "How many?", "answer": 4},
        {"id": "b", "question": "Who?", "answers": ["Ada", "Ada Lovelace"]},
    )
    env = make_env("mcp/tasks", servers=SERVERS, path=path, grade="f1")
    first, second = env.tasks("train")
    assert first == Task("train-0", {"question": "How many?", "answers": ["4"]})
    assert second.id == "b" and env.tasks("eval") == ()
    assert env.score(second, "Lovelace") == {"correct": pytest.approx(2 / 3)}
    assert env.score(second, None) == {"correct": 0.0}
    assert env.gold_action(second, 0) is None


def test_a_row_without_an_answer_is_named(tmp_path: Path) -> None:
    path = rows(tmp_path / "q.jsonl", {"question": "a", "answer": 1}, {"question": "b"})
    with pytest.raises(DataError, match=r"q.jsonl:2: the row has no 'answer'"):
        make_env("mcp/tasks", servers=SERVERS, path=path).tasks("train")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "x.jsonl"}, "need `servers`"),
        ({"servers": SERVERS}, "need questions"),
        ({"servers": [{"command": "x", "url": "http://y"}], "path": "x"}, "one of the two"),
        ({"servers": [{"comand": "x"}], "path": "x"}, "servers"),
        ({"grade": "vibes"}, "grade"),
    ],
)
def test_settings_that_cannot_work_are_mistakes_of_the_recipe(settings, words) -> None:
    with pytest.raises(RecipeError, match=words):
        make_env("mcp/tasks", **settings)


@pytest.mark.slow
async def test_it_keeps_the_contract_with_real_servers() -> None:
    report = await check_env(lambda: make_env("mcp/tasks"))
    assert {"fork", "leak", "gold", "repeat"} <= set(report.checked)


@pytest.mark.slow
async def test_a_stateful_server_is_one_for_each_episode(tmp_path: Path) -> None:
    path = rows(tmp_path / "q.jsonl", {"question": "How many calls?", "answer": "2"})

    def make():
        return make_env("mcp/tasks", servers=SERVERS, path=path, per_episode=True)

    env, other = make(), make()
    assert env.forkable == "replay" and env.tool_schemas[0]["function"]["name"] == "count_calls"
    task = env.tasks("train")[0]
    call = env.call_format.call("count_calls", {})
    for _ in range(2):
        await env.reset(task, seed=0)
        await other.reset(task, seed=0)
        said = [(await one.step(call)).observation[0].text for one in (env, env, other)]
        assert said == ["1", "2", "1"]
    wrong = await env.step(env.call_format.call("refuse", {"why": "not today"}))
    assert wrong.observation[0].text == "error: Error executing tool refuse: not today"
    assert not wrong.info.tool_calls[0].ok
    assert (await env.step("<answer>2</answer>")).reward == 1.0
    await env.close()
    await other.close()

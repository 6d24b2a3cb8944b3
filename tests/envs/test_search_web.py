"""Questions on a web: a made-up one without a network, and a served one with search and pages."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from web_site import Reply, site

from agentrl.core.errors import RecipeError
from agentrl.core.registry import make_env
from agentrl.envs.search import sample


async def played(env, task):
    """Gold actions to the end: every observation, and what was earned."""
    shown = [(await env.reset(task, seed=0))[0].text]
    turn, earned = 0, 0.0
    while True:
        result = await env.step(env.gold_action(task, turn))
        shown += [message.text for message in result.observation]
        turn, earned = turn + 1, earned + result.reward
        if result.terminated or result.truncated:
            return shown, earned


@pytest.mark.parametrize("id_", ["search/web", "search/corpus"])
async def test_every_question_of_the_made_up_world_is_answered_by_its_gold_actions(id_):
    env = make_env(id_)
    for split, count in (("train", 48), ("eval", 24)):
        tasks = env.tasks(split)
        assert len(tasks) == count
        for task in tasks:
            shown, earned = await played(env, task)
            assert earned == 1.0, task.id
            assert task.data["answers"][0] in shown[-1], "the answer stood in what was read last"
            assert task.data["answers"][0] not in shown[0]


def test_the_made_up_world_is_always_the_same_and_evaluation_is_about_other_towns():
    towns = sample.towns()
    assert len({town.name for town in towns}) == len({town.bridge for town in towns}) == 24
    people = [person for town in towns for person in (town.mayor, town.architect)]
    assert len(set(people)) == 48
    train = " ".join(question.text for question in sample.questions("train"))
    assert not any(town.name in train for town in towns[16:])
    assert sample.questions("test") == []
    assert towns[0].name == "Garcordale"  # a change of the world is a decision


async def test_links_of_a_page_lead_to_the_next_one():
    env = make_env("search/web")
    town = sample.towns()[3]
    (task,) = [one for one in env.tasks("train") if one.id.endswith("-year")][3:4]
    assert town.name in task.data["question"]
    await env.reset(task, seed=0)
    await env.step(f"<search>{town.name}</search>")
    page = await env.step(f"<browse>{sample.url_of(task.data['support'][0])}</browse>")
    link = f"[{town.bridge}]({sample.url_of(task.data['support'][1])})"
    assert link in page.observation[0].text.replace("\n", " ")
    gone = await env.step("<browse>http://sample.invalid/none</browse>")
    assert "404" in gone.observation[0].text and not gone.info.tool_calls[0].ok


async def test_a_served_web_is_searched_and_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "k")
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"id": "q", "question": "Who built it?", "answers": ["Ada Marrow"]}\n')
    page = b"<html><body><article><p>It was built by Ada Marrow in 1874, they say.</p></article>"
    replies = {"/page": Reply(page)}
    with site(replies) as there:
        row = {"title": "It", "link": f"{there.url}/page", "snippet": "built in 1874"}
        replies["/search"] = Reply(json.dumps({"organic": [row]}).encode())
        env = make_env(
            "search/web",
            search={"provider": "serper", "base_url": there.url},
            fetch={"allow_private": ["127.0.0.1"]},
            eval=str(questions),
        )
        (task,) = env.tasks("eval")
        assert env.tasks("train") == []
        assert env.gold_action(task, 0) == "<answer>Ada Marrow</answer>"
        await env.reset(task, seed=0)
        found = await env.step("<search>it</search>")
        assert f"{there.url}/page built in 1874" in found.observation[0].text
        twin = await env.fork()
        read = await twin.step(f"<browse>{there.url}/page</browse>")
        assert "Ada Marrow" in read.observation[0].text
        assert (await twin.step("<answer>Ada Marrow</answer>")).reward == 1.0
        assert (await env.step("<answer>somebody</answer>")).reward == 0.0


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(RecipeError, match="made-up web that has its own questions"):
        make_env("search/web", eval="x.jsonl")
    with pytest.raises(RecipeError, match="search"):
        make_env("search/web", search={"provider": "altavista"})
    with pytest.raises(RecipeError, match="cannot pay for what is `found`"):
        make_env("search/web", rewards={"found": 1.0})


def test_a_web_env_serves_one_event_loop_after_another():
    env = make_env("search/web")
    task = env.tasks("eval")[0]
    assert [asyncio.run(played(env, task))[1] for _ in range(2)] == [1.0, 1.0]

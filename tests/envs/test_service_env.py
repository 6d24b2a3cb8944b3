"""Customer service as conversations: users, scores, forks, and tau2-bench's tasks end to end."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from sweeps import SHARED_DATA, needs_data
from web_site import Reply, site

from agentrl.core.errors import DataError, EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import ToolCall
from agentrl.envs.service.scoring import act, called

TAU2 = SHARED_DATA / "tau2_bench"
NEEDS_TAU2 = needs_data("tau2_bench")


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def desk_task(env, id_="ada-both"):
    return next(one for one in env.tasks("train") if one.id == id_)


async def test_a_conversation_by_hand():
    env = make_env("service/tasks")
    task = desk_task(env)
    opening = await env.reset(task, seed=0)
    assert [message.role for message in opening] == ["system", "user"]
    assert "You cannot delete one" in opening[0].text and "You are Ada" in opening[1].text
    asked = await env.step("Shall I do both for you?")
    assert asked.observation[0].text == "Yes, please." and not asked.terminated
    both = task.data["actions"][1:]
    done = await env.step("".join(call(one["name"], **one["arguments"]) for one in both))
    assert [message.role for message in done.observation] == ["tool", "tool"]
    assert json.loads(done.observation[1].text)["status"] == "completed"
    assert [one.ok for one in done.info.tool_calls] == [True, True]
    end = await env.step(f"Done: {', '.join(task.data['communicate'])}.")
    assert end.terminated and end.reward == 1.0 and end.info.rewards == {"success": 1.0}
    with pytest.raises(EnvError, match="after the end"):
        await env.step("more")


async def test_calls_of_one_action_run_in_their_order():
    env = make_env("service/tasks")
    await env.reset(desk_task(env), seed=0)
    made = await env.step(
        call("create_task", user_id="user_1", title="x")
        + call("update_task_status", task_id="task_9", status="completed")
    )
    assert [one.ok for one in made.info.tool_calls] == [True, True]


@pytest.mark.parametrize(
    ("actions", "metric"),
    [
        ([call("create_task", user_id="user_1", title="wrong"), "gold"], "db"),
        (["gold"], "db"),
        (["all", "Done."], "communicate"),
        (["all", call("create_task", user_id="user_2", title="more"), "gold"], "db"),
    ],
)
async def test_what_is_wrong_earns_nothing_and_the_metrics_say_what_it_was(actions, metric):
    env = make_env("service/tasks")
    task = desk_task(env)
    gold = [env.gold_action(task, turn) for turn in range(4)]
    await env.reset(task, seed=0)
    for action in actions:
        for one in gold[:-1] if action == "all" else [gold[-1] if action == "gold" else action]:
            result = await env.step(one)
    assert result.terminated and result.reward == 0.0
    assert result.info.metrics[metric] == 0.0


async def test_an_agent_that_never_ends_is_truncated_and_earns_nothing():
    env = make_env("service/tasks", max_turns=2)
    await env.reset(desk_task(env), seed=0)
    await env.step("What?")
    last = await env.step("What?")
    assert last.truncated and not last.terminated and last.reward == 0.0


async def test_mistakes_in_calls_are_told_and_counted():
    env = make_env("service/tasks")
    await env.reset(desk_task(env), seed=0)
    told = await env.step(call("create_tsk", user_id="user_1", title="x"))
    assert "Did you mean 'create_task'?" in told.observation[0].text
    assert told.info.malformed_calls == 1
    refused = await env.step(call("create_task", user_id="user_99", title="x"))
    assert "user user_99 not found" in refused.observation[0].text
    assert not refused.info.tool_calls[0].ok
    wrong = await env.step(call("update_task_status", task_id="task_1", status="deleted"))
    assert "'pending' or 'completed'" in wrong.observation[0].text


async def test_forks_go_their_own_ways():
    env = make_env("service/tasks")
    task = desk_task(env)
    gold = [env.gold_action(task, turn) for turn in range(4)]
    await env.reset(task, seed=0)
    await env.step(gold[0])
    twin = await env.fork()
    await env.step(call("update_task_status", task_id="task_3", status="completed"))
    for action in gold[1:]:
        mine, others = await twin.step(action), await env.step(action)
    assert (mine.reward, others.reward) == (1.0, 0.0)


def test_a_called_action_may_leave_its_words_free():
    action = {"name": "transfer", "arguments": {"summary": "a"}, "compare": None}
    made = [ToolCall("transfer", {"summary": "b"})]
    assert called(made, [action]) == 0.0
    assert called(made, [{**action, "compare": []}]) == 1.0
    assert called([], [{**action, "compare": []}]) == 0.0 and called([], []) == 1.0


def chat(*texts):
    return [
        Reply(json.dumps({"choices": [{"message": {"content": text}}]}).encode()) for text in texts
    ]


async def test_a_model_plays_the_user_and_leaves_when_it_has_what_it_wants():
    replies = {"/v1/chat/completions": chat("Hi, I am Ada.", "Do it.", "Thanks! ###STOP###")}
    with site(replies) as there:
        env = make_env(
            "service/tasks",
            user_model={"base_url": f"{there.url}/v1", "model": "m", "backoff": 0.01},
        )
        task = desk_task(env, "ada-done")
        assert env.gold_action(task, 0) is None
        opening = await env.reset(task, seed=0)
        assert opening[1].text == "Hi, I am Ada."
        assert (await env.step("What do you want?")).observation[0].text == "Do it."
        await env.step(call("update_task_status", task_id="task_1", status="completed"))
        end = await env.step(f"I did {task.data['communicate'][0]}.")
        sent = [json.loads(one["body"])["messages"] for one in there.heard]
    assert end.terminated and end.reward == 1.0
    assert [line["role"] for line in sent[1]] == ["system", "user", "assistant", "user"]
    assert "You are Ada" in sent[0][0]["content"] and "task_1" not in sent[0][0]["content"]
    assert sent[1][3]["content"] == "What do you want?", "calls and results are not for the user"


async def test_a_user_that_fails_is_a_failure_and_no_reward_of_zero():
    with site({"/chat/completions": [Reply(b"busy", 503), Reply(b"no key", 401)]}) as there:
        env = make_env(
            "service/tasks", user_model={"base_url": there.url, "model": "m", "backoff": 0.01}
        )
        with pytest.raises(EnvError, match="status 401: no key"):
            await env.reset(desk_task(env), seed=0)
    for body in (
        b"{}",
        b"[]",
        b'{"choices": []}',
        b"<html>",
        b'{"choices": [{"message": {"content": ""}}]}',
    ):
        with site({"/chat/completions": Reply(body)}) as there:
            env = make_env("service/tasks", user_model={"base_url": there.url, "model": "m"})
            with pytest.raises(EnvError, match="message"):
                await env.reset(desk_task(env), seed=0)


@pytest.mark.parametrize(
    ("verdict", "reward"),
    [("[true, true]", 1.0), ("I think: [true, false]", 0.0), ("[true]", None), ("yes", None)],
)
async def test_a_judge_says_whether_assertions_hold_or_nothing_is_scored(tmp_path, verdict, reward):
    row = {
        "id": "t",
        "user_scenario": {"instructions": "Say hello."},
        "evaluation_criteria": {
            "nl_assertions": ["a", "b"],
            "reward_basis": ["DB", "NL_ASSERTION"],
        },
    }
    tasks = tmp_path / "t.jsonl"
    tasks.write_text(json.dumps(row))
    with site({"/chat/completions": chat(verdict)}) as there:
        env = make_env(
            "service/tasks", train=str(tasks), judge={"base_url": there.url, "model": "m"}
        )
        await env.reset(env.tasks("train")[0], seed=0)
        if reward is None:
            with pytest.raises(EnvError, match="the judge should answer with 2"):
                await env.step("Hello.")
            return
        end = await env.step("Hello.")
        assert end.reward == reward and end.info.metrics["nl_assertion"] == reward
    alone = make_env("service/tasks", train=str(tasks))
    await alone.reset(alone.tasks("train")[0], seed=0)
    unjudged = await alone.step("Hello.")
    assert unjudged.reward == 1.0 and unjudged.info.metrics["unjudged"] == 2.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluation_criteria": {"reward_basis": ["ENV_ASSERTION"]}}, "'ENV_ASSERTION'"),
        ({"evaluation_criteria": {"actions": [{"name": "x", "arguments": {}}]}}, "no tool of the"),
        ({"evaluation_criteria": {"actions": [{"name": "get_users"}]}}, "has the arguments null"),
        ({"evaluation_criteria": []}, "must be an object"),
        ({"user_scenario": {"instructions": ""}}, "says nothing"),
        ({"user_scenario": None}, "says nothing"),
    ],
)
def test_a_malformed_task_says_where(tmp_path, change, said):
    tasks = tmp_path / "t.jsonl"
    row = {"id": "t", "user_scenario": {"instructions": "x"}, "evaluation_criteria": {}, **change}
    tasks.write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"t\.jsonl:1: .*{said}"):
        make_env("service/tasks", train=str(tasks)).tasks("train")


def test_settings_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="'retail' needs db and policy"):
        make_env("service/tasks", domain="retail")
    with pytest.raises(RecipeError, match="max_turns >= 1"):
        make_env("service/tasks", max_turns=0)
    (tmp_path / "db.json").write_text('{"tasks": []}')
    for db, said in (
        ("db.json", "must be an object of records"),
        ("none.json", "no such database"),
    ):
        env = make_env("service/tasks", db=str(tmp_path / db))
        with pytest.raises(DataError, match=said):
            asyncio.run(env.reset(env.tasks("train")[0], seed=0))


MOCK_IDS = (
    "create_task_1_nl_eval",
    "update_task_1",
    "update_task_with_message_history",
    "update_task_with_initialization_data",
    "update_task_with_initialization_actions",
    "impossible_task_1",
)
SETTINGS = {
    "retail": {"domain": "retail", "db": "retail_db.json"},
    "airline": {"domain": "airline", "db": "."},
    "mock": {"domain": "desk", "db": "mock_db.json"},
}


def settings(name):
    chosen = SETTINGS[name]
    return {
        "domain": chosen["domain"],
        "db": str(TAU2 / chosen["db"]),
        "policy": str(TAU2 / f"{name}_policy.txt"),
        "train": str(TAU2 / f"{name}_tasks.jsonl"),
        "max_turns": 40,
    }


# Gold calls that the domain refuses, as its policy means it to: a look-up that finds nothing, or a
# change that is not allowed.
REFUSED = {
    "retail": {
        "2": ["get_product_details"],
        "3": ["get_product_details"],
        "35": ["find_user_id_by_email"],
        "37": ["find_user_id_by_email"],
        "46": ["get_order_details", "get_order_details"],
        "47": ["get_order_details", "get_order_details"],
        "64": ["exchange_delivered_order_items"],
        "68": ["find_user_id_by_name_zip"],
        "105": ["exchange_delivered_order_items"],
    },
    "airline": {},
}


@NEEDS_TAU2
@pytest.mark.parametrize("name", REFUSED)
def test_which_gold_calls_are_refused(name):
    env = make_env("service/tasks", **settings(name))
    refused = {task.id: act(env.start(task), task.data["actions"]) for task in env.tasks("train")}
    named = {id_: [one.partition(":")[0] for one in said] for id_, said in refused.items() if said}
    assert named == REFUSED[name]


@NEEDS_TAU2
async def test_the_mock_tasks_are_solved_by_their_gold_actions():
    env = make_env("service/tasks", **settings("mock"))
    for task in env.tasks("train"):
        await env.reset(task, seed=0)
        turn, over = 0, False
        while not over:
            result = await env.step(env.gold_action(task, turn))
            turn, over = turn + 1, result.terminated or result.truncated
        assert result.terminated and result.reward == 1.0, task.id


@NEEDS_TAU2
async def test_a_conversation_that_had_begun_is_shown_and_its_calls_were_made():
    env = make_env("service/tasks", **settings("mock"))
    tasks = {task.id: task for task in env.tasks("train")}
    assert tuple(tasks) == MOCK_IDS
    shown = await env.reset(tasks["update_task_with_message_history"], seed=0)
    roles = [message.role for message in shown]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    done = await env.step(call("update_task_status", task_id="task_2", status="completed"))
    assert json.loads(done.observation[0].text)["title"] == "Project Review"
    assert (await env.step("Done.")).reward == 1.0

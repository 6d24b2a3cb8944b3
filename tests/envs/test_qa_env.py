"""Questions answered closed book: where an answer may stand, what it earns, and whose rows."""

from __future__ import annotations

import json

import pytest

from agentrl.core.errors import DataError, EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.qa import QuestionEnv

TASK = Task("q", {"question": "Which lake?", "answers": ["Lake Superior", "Superior"]})


async def played(action: str, **settings):
    env = QuestionEnv(**settings)
    await env.reset(TASK, seed=0)
    return await env.step(action)


@pytest.mark.parametrize(
    ("prompt", "action", "answer"),
    [
        ("tag", "So: <answer> the lake Superior </answer>", "the lake Superior"),
        ("tag", "<answer>Huron</answer> no, <answer>Superior</answer>", "Superior"),
        ("tag", "<think><answer>Superior</answer></think> I do not know.", None),
        ("tag", "Superior", None),
        ("tag", "<answer> </answer>", None),
        ("boxed", r"It is \boxed{Superior}.", "Superior"),
        ("boxed", "It is Superior.", None),
        ("final", "Reasons.\nFINAL ANSWER: Superior\n", "Superior"),
        ("final", "final answer: Huron\nFinal Answer:  Superior ", "Superior"),
        ("final", "<think>FINAL ANSWER: Superior</think>", None),
        ("final", "FINAL ANSWER:\nSuperior", None),
        ("plain", " Superior \n", "Superior"),
        ("plain", "<think>Huron?</think>\nSuperior", "Superior"),
        ("plain", "maybe Huron</think>Superior", "Superior"),
        ("plain", "<think>Superior", None),
    ],
)
async def test_the_answer_stands_where_the_prompt_asks_for_it(prompt, action, answer):
    assert QuestionEnv(prompt=prompt).answer_of(action) == answer
    result = await played(action, prompt=prompt)
    assert result.reward == (0.0 if answer is None else 1.0)
    assert (result.terminated, result.truncated) == (True, False)
    assert result.info.metrics["answered"] == float(answer is not None)


async def test_the_question_is_asked_with_what_is_expected_of_its_answer():
    asked = {}
    for prompt in ("plain", "tag", "boxed", "final"):
        (message,) = await QuestionEnv(prompt=prompt).reset(TASK, seed=0)
        assert message.role == "user" and message.text.startswith("Which lake?")
        asked[prompt] = message.text
    assert asked["plain"] == "Which lake?"
    assert "<answer> Lisbon </answer>" in asked["tag"] and "\\boxed{Lisbon}" in asked["boxed"]
    assert "FINAL ANSWER:" in asked["final"]


async def test_components_are_weighed_and_all_are_measured():
    # {in, lake, superior} against {lake, superior}: precision 2/3, recall 1, so 0.8.
    result = await played("<answer>in Lake Superior</answer>", rewards={"em": 2.0, "f1": 0.5})
    assert result.info.rewards == pytest.approx({"em": 0.0, "f1": 0.4})
    assert result.reward == pytest.approx(0.4)
    assert result.info.metrics == pytest.approx(
        {"em": 0.0, "f1": 0.8, "cover_em": 1.0, "gaia": 0.0, "answered": 1.0}
    )


async def test_an_episode_is_one_turn():
    env = QuestionEnv()
    with pytest.raises(EnvError, match="before reset"):
        await env.step("<answer>x</answer>")
    await env.reset(TASK, seed=0)
    twin = await env.fork()
    await env.step("<answer>x</answer>")
    with pytest.raises(EnvError, match="after the end"):
        await env.step("<answer>x</answer>")
    assert (await twin.step("<answer>Superior</answer>")).reward == 1.0


async def test_a_wrong_answer_can_be_followed_by_another():
    again = [{"type": "try_again", "attempts": 2}]
    env = make_env("qa/questions", wrappers=again)
    task = env.tasks("eval")[0]
    await env.reset(task, seed=0)
    first = await env.step("<answer>nowhere</answer>")
    assert not first.terminated and "Incorrect" in first.observation[0].text
    second = await env.step(f"<answer>{task.data['answers'][0]}</answer>")
    assert second.terminated and second.reward == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rewards": {"cover_em": 1.0}},
            "rewards has no component 'cover_em'. Known: em, f1, gaia",
        ),
        ({"rewards": {"em": 0.0}}, "gives every component the weight 0"),
        ({"prompt": "box"}, "prompt"),
        ({"corpus": "c.jsonl"}, "no setting 'corpus'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(RecipeError, match=r"qa/questions|rewards") as caught:
        make_env("qa/questions", **settings)
    assert message in str(caught.value)


def test_its_rows_are_those_of_the_search_environments(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text(json.dumps({"problem": "Which lake?", "answer": "Superior"}) + "\n")
    env = QuestionEnv(eval=str(path))
    data = {"question": "Which lake?", "answers": ["Superior"]}
    assert list(env.tasks("eval")) == [Task("eval-0", data)] and list(env.tasks("train")) == []
    with pytest.raises(DataError, match=r"no\.jsonl: there is no such question file"):
        QuestionEnv(eval=str(tmp_path / "no.jsonl")).tasks("eval")


def test_without_data_it_asks_for_what_people_know():
    tasks = QuestionEnv().tasks("eval")
    assert len(tasks) > 300
    assert len({task.data["question"] for task in tasks}) == len(tasks)
    assert not [task.id for task in tasks if "population" in task.id or "latitude" in task.id]

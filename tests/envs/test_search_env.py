"""The search environments: what the policy reads, how it is scored, forks, settings and gold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import DataError, EnvError, RecipeError
from agentrl.core.registry import env_ids, make_env
from agentrl.core.types import Task
from agentrl.envs.search import CorpusSearchEnv, FactsSearchEnv
from agentrl.envs.search.gold import gold_queries
from agentrl.envs.search.index import Bm25Index
from agentrl.envs.search.prompts import question_prompt
from agentrl.envs.search.records import Passage
from agentrl.envs.search.structure import boxed, valid_structure

CORPUS = [
    {"id": "p1", "title": "Solaris", "text": "Solaris is a film by Andrei Tarkovsky."},
    {"id": "p2", "title": "Andrei Tarkovsky", "text": "Tarkovsky was born in Zavrazhye."},
    {"id": "p3", "title": "Stalker", "text": "Stalker is a film <result> by Tarkovsky, too."},
]
QUESTIONS = [
    {
        "id": "q1",
        "question": "Where was the director of Solaris born?",
        "answers": ["Zavrazhye", "Zavrazhye village"],
        "hops": 2,
        "support": ["p1", "p2"],
    },
    {
        "id": "q2",
        "question": "Is Stalker a film?",
        "answers": ["yes"],
        "hops": 1,
        "support": ["p3"],
    },
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {"corpus": tmp_path / "corpus.jsonl", "train": tmp_path / "train.jsonl"}
    for name, rows in (("corpus", CORPUS), ("train", QUESTIONS)):
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture
def env(files: dict[str, str]) -> CorpusSearchEnv:
    return CorpusSearchEnv(**files, topk=1, result_style="plain")


async def start(env: CorpusSearchEnv, number: int = 0) -> Task:
    task = env.tasks("train")[number]
    await env.reset(task, seed=0)
    return task


def measured(
    em: float, *, format: float, searches: float, found: float = 0.5, gaia: float | None = None
):
    """Metrics of an answer that matches wholly or not at all; `gaia` where it differs.

    Most episodes here find the first of two supporting passages.
    """
    return {
        "em": em,
        "f1": em,
        "cover_em": em,
        "gaia": em if gaia is None else gaia,
        "format": format,
        "searches": searches,
        "found": found,
    }


async def test_the_default_contract_is_one_inline_result_a_search(env: CorpusSearchEnv) -> None:
    (first,) = await env.reset(env.tasks("train")[0], seed=0)
    assert (first.role, first.text) == ("user", "Where was the director of Solaris born?")
    assert env.stop == ("</search>", "</answer>")
    searched = await env.step("<search>solaris</search>")
    (told,) = searched.observation
    assert (told.role, told.text) == (
        "inline",
        "<result>Solaris is a film by Andrei Tarkovsky.</result>",
    )
    assert (searched.reward, searched.terminated, searched.truncated) == (0.0, False, False)
    answered = await env.step("<answer>zavrazhye, the Village</answer>")
    assert (answered.reward, answered.terminated) == (1.0, True)
    assert answered.info.rewards == {"em": 1.0}
    # GAIA's rule drops no article.
    assert answered.info.metrics == measured(1.0, gaia=0.0, format=1.0, searches=1.0)


async def test_documents_are_numbered_and_their_tags_cannot_be_read_as_tags(files) -> None:
    env = CorpusSearchEnv(**files, topk=2)
    await start(env)
    (told,) = (await env.step("<search>stalker film</search>")).observation
    assert told.text == (
        '<result>Doc 1(Title: "Stalker") Stalker is a film &lt;result> by Tarkovsky, too.\n'
        'Doc 2(Title: "Solaris") Solaris is a film by Andrei Tarkovsky.</result>'
    )


async def test_nothing_found_and_long_results_are_told(files) -> None:
    env = CorpusSearchEnv(**files, max_result_chars=50)
    await start(env)
    (nothing,) = (await env.step("<search>zebra</search>")).observation
    assert nothing.text == "<result>nothing found</result>"
    (cut,) = (await env.step("<search>born</search>")).observation
    assert cut.text == '<result>Doc 1(Title: "Andrei Tarkovsky") Tarkovsky was ...</result>'


async def test_searches_over_the_limit_are_refused_in_words(files) -> None:
    env = CorpusSearchEnv(**files, max_searches=1)
    await start(env)
    await env.step("<search>solaris</search>")
    refused = await env.step("<search>tarkovsky</search>")
    assert "no tool calls are left (limit 1)" in refused.observation[0].text
    assert refused.info.tool_calls == ()
    assert (await env.step("<answer>x</answer>")).info.metrics["searches"] == 1.0


async def test_a_malformed_action_is_explained_and_costs_the_format_reward(files) -> None:
    env = CorpusSearchEnv(**files, rewards={"em": 1.0, "format": 0.2})
    await start(env)
    wrong = await env.step("<search>solaris")
    assert "<search> is not closed" in wrong.observation[0].text
    assert wrong.info.malformed_calls == 1
    end = await env.step("<answer>Zavrazhye</answer>")
    assert end.info.rewards == {"em": 1.0, "format": 0.0}
    assert end.reward == 1.0


async def test_reward_components_are_kept_apart_and_weighted(files) -> None:
    env = CorpusSearchEnv(**files, rewards={"em": 0.5, "f1": 2.0, "format": 0.25})
    await start(env)
    end = await env.step("<answer>the Zavrazhye region</answer>")
    # Tokens {zavrazhye, region} against {zavrazhye}: precision 1/2, recall 1, F1 2/3.
    assert end.info.rewards == pytest.approx({"em": 0.0, "f1": 4 / 3, "format": 0.25})
    assert end.reward == pytest.approx(4 / 3 + 0.25)
    await start(env, 1)
    verdict = await env.step("<answer>yes it is</answer>")
    assert verdict.info.metrics["f1"] == 0.0


async def test_what_supports_the_answer_is_paid_where_it_is_found_first(files) -> None:
    env = CorpusSearchEnv(**files, topk=1, rewards={"em": 1.0, "found": 0.5})
    await start(env)
    # One of two passages: 0.5 / 2. The same again pays nothing, nor does one that supports nothing.
    first = await env.step("<search>solaris</search>")
    assert (first.reward, first.info.rewards) == (0.25, {"found": 0.25})
    twin = await env.fork()
    for query in ("solaris", "stalker"):
        again = await env.step(f"<search>{query}</search>")
        assert (again.reward, again.info.rewards) == (0.0, {})
    assert (await twin.step("<search>zavrazhye</search>")).reward == 0.25
    ends = [await one.step("<answer>Zavrazhye</answer>") for one in (env, twin)]
    assert [one.info.rewards for one in ends] == [{"em": 1.0}, {"em": 1.0}]
    assert [one.info.metrics["found"] for one in ends] == [0.5, 1.0]


def test_pay_for_what_is_found_needs_questions_that_say_what_supports_them(files) -> None:
    bare = [{"id": "q3", "question": "Who?", "answers": ["x"]}]
    Path(files["train"]).write_text(json.dumps(bare[0]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="question 'q3' of split train names no supporting"):
        CorpusSearchEnv(**files, rewards={"em": 1.0, "found": 0.5}).tasks("train")
    assert CorpusSearchEnv(**files).tasks("train")


async def test_no_answer_in_time_scores_nothing(files) -> None:
    env = CorpusSearchEnv(**files, max_turns=1, rewards={"em": 1.0, "format": 1.0})
    await start(env)
    end = await env.step("<search>solaris</search>")
    assert (end.reward, end.terminated, end.truncated) == (0.0, False, True)
    assert end.info.metrics == measured(0.0, format=0.0, searches=0.0, found=0.0)


async def test_a_fork_leaves_the_original_alone(env: CorpusSearchEnv) -> None:
    await start(env)
    await env.step("<search>solaris</search>")
    twin = await env.fork()
    await twin.step("<search>broken")
    twin_end = await twin.step("<answer>Zavrazhye</answer>")
    end = await env.step("<answer>Moscow</answer>")
    assert (twin_end.info.metrics["em"], twin_end.info.metrics["format"]) == (1.0, 0.0)
    assert (end.info.metrics["em"], end.info.metrics["format"]) == (0.0, 1.0)
    assert twin.retriever is env.retriever
    await start(env)
    again = await env.step("<answer>Zavrazhye</answer>")
    assert again.info.metrics == measured(1.0, format=1.0, searches=0.0, found=0.0)


@pytest.mark.parametrize("prompt", ["plain", "search_r1", "tree_grpo", "arpo"])
async def test_gold_actions_find_every_passage_and_score_in_full(prompt, files) -> None:
    env = CorpusSearchEnv(**files, prompt=prompt, rewards={"em": 1.0, "format": 1.0}, topk=1)
    for number, task in enumerate(env.tasks("train")):
        await start(env, number)
        read = ""
        for turn in range(3):
            action = env.gold_action(task, turn)
            if action is None:
                break
            result = await env.step(action)
            read += "".join(message.text for message in result.observation)
        assert result.info.rewards == {"em": 1.0, "format": 1.0}
        for passage in CORPUS:
            assert (f'"{passage["title"]}"' in read) == (passage["id"] in task.data["support"])
    assert env.gold_action(env.tasks("train")[0], 9) is None


async def test_gold_actions_keep_to_the_limits_and_speak_json(files) -> None:
    env = CorpusSearchEnv(**files, max_turns=2)
    task = env.tasks("train")[0]
    assert [env.gold_action(task, turn) for turn in range(3)] == [
        "<search>Solaris</search>",
        "<answer>Zavrazhye</answer>",
        None,
    ]
    calls = CorpusSearchEnv(**files, format="json", max_searches=1)
    assert len(calls.tool_schemas) == 1
    await start(calls)
    told = await calls.step(calls.gold_action(task, 0) or "")
    assert told.observation[0].role == "tool"
    assert "Solaris is a film" in told.observation[0].text
    end = await calls.step(calls.gold_action(task, 1) or "")
    assert end.info.metrics == measured(1.0, format=1.0, searches=1.0)


def test_a_gold_query_falls_back_on_the_text_where_titles_are_shared() -> None:
    corpus = [Passage(f"p{n}", "Paris", f"fact number {word}") for n, word in enumerate("abc")]
    index = Bm25Index.build(corpus)
    assert gold_queries(index, ("p0", "p2"), 1) == ("Paris", "fact number c")
    twins = Bm25Index.build([Passage("x", "T", "same"), Passage("y", "T", "same")])
    assert gold_queries(twins, ("y",), 1) == ("T",)


async def test_only_hops_wanted_are_asked(files) -> None:
    env = CorpusSearchEnv(**files, hops=[1])
    assert [task.id for task in env.tasks("train")] == ["q2"]
    assert env.tasks("eval") == []
    with pytest.raises(DataError, match=r"no train question has hops \(3,\): there are \[1, 2\]"):
        CorpusSearchEnv(**files, hops=[3]).tasks("train")


async def test_a_question_file_written_anew_is_read_anew(files) -> None:
    env = CorpusSearchEnv(**files)
    assert len(env.tasks("train")) == 2
    Path(files["train"]).write_text(json.dumps(QUESTIONS[1]), encoding="utf-8")
    assert [task.id for task in env.tasks("train")] == ["q2"]


SETTINGS_MISTAKES = {
    "questions alone": ({"train": "t"}, "search/corpus has questions but nothing to search"),
    "no encoder": ({"corpus": "c", "retrieval": "dense"}, "retrieval 'dense' needs an encoder"),
    "encoder": ({"corpus": "c", "encoder": "e"}, "retrieval 'bm25' has no use for encoder='e'"),
    "a server's": (
        {"retriever": "http://x", "retrieval": "dense", "encoder": "e"},
        "is for the server 'http://x' to decide",
    ),
    "both": ({"corpus": "c", "retriever": "http://x"}, "needs either corpus (a file) or retriever"),
    "index alone": ({"retriever": "http://x", "index": "i"}, "keeps the index of a corpus"),
    "component": (
        {"corpus": "c", "rewards": {"exact": 1.0}},
        "rewards has no component 'exact'. Known: em, f1, gaia, format, found.",
    ),
    "no reward": ({"corpus": "c", "rewards": {"em": 0.0}}, "gives every component the weight 0"),
    "style": ({"corpus": "c", "result_style": "pretty"}, "env 'search/corpus': result_style:"),
    "prompt of tags": (
        {"corpus": "c", "format": "json", "prompt": "arpo"},
        "prompt 'arpo' explains the tags of format 'xml', but format is 'json'",
    ),
    "topk": ({"corpus": "c", "topk": 0}, "CorpusSearchEnv needs topk >= 1, got 0"),
    "unknown": (
        {"corpus": "c", "max_search": 2},
        "env 'search/corpus' has no setting 'max_search'. Did you mean 'max_searches'?",
    ),
}


@pytest.mark.parametrize("name", SETTINGS_MISTAKES)
def test_settings_that_cannot_work_are_refused(name: str) -> None:
    settings, message = SETTINGS_MISTAKES[name]
    with pytest.raises(RecipeError) as caught:
        make_env("search/corpus", **settings)
    assert message in str(caught.value)


async def test_a_dead_retrieval_server_is_an_environment_error(files) -> None:
    env = CorpusSearchEnv(retriever="http://127.0.0.1:9", train=files["train"])
    env.retriever._retries = 0  # type: ignore[attr-defined]
    task = await start(env)
    with pytest.raises(EnvError, match=r"127\.0\.0\.1:9/retrieve: no answer after 1 attempts"):
        await env.step("<search>solaris</search>")
    # Without a corpus at hand the oracle knows the answer and no search.
    assert env.gold_action(task, 0) == "<answer>Zavrazhye</answer>"


def test_prompts_hold_the_question_as_it_is() -> None:
    question = "Who {wrote} <think>?"
    assert question_prompt(question, "plain") == question
    for style in ("search_r1", "tree_grpo", "arpo"):
        text = question_prompt(question, style)
        assert text.endswith(f"Question: {question}")
        for tag in ("<think>", "</think>", "<search>", "<result>", "<answer>"):
            assert tag in text.removesuffix(question)
    assert "\\boxed{the answer alone}" in question_prompt(question, "arpo")


THINK = "<think> a thought </think>"
STRUCTURES = {
    "search then answer": ([f"{THINK} <search>q</search>", f"{THINK}\n<answer>a</answer>\n"], True),
    "answer at once": ([f"{THINK}<answer>a</answer>"], True),
    "thought opened by the template": (["a thought </think><answer>a</answer>"], True),
    "no action": ([], False),
    "no thought": (["<search>q</search>", f"{THINK}<answer>a</answer>"], None),
    "bare answer": (["<answer>a</answer>"], None),
    "no answer": ([f"{THINK}<search>q</search>"], False),
    "answer before the end": ([f"{THINK}<answer>a</answer>", f"{THINK}<answer>a</answer>"], False),
    "two thoughts": ([f"{THINK}{THINK}<answer>a</answer>"], False),
    "thought last": ([f"<answer>a</answer>{THINK}"], False),
    "two searches": ([f"{THINK}<search>q</search><search>q</search>", "<answer>a</answer>"], False),
    "text between": ([f"{THINK} so <answer>a</answer>"], False),
    "text after": ([f"{THINK}<answer>a</answer> done"], False),
    "empty answer": ([f"{THINK}<answer> </answer>"], False),
    "not closed": ([f"{THINK}<answer>a"], False),
    "not opened": ([f"{THINK}a</answer>"], False),
    "crossed": (["<think> a <answer> b </think> c </answer>"], False),
    "own result": ([f"{THINK}<result>r</result><answer>a</answer>"], False),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_follows_the_automaton_of_tree_grpo(name: str) -> None:
    actions, valid = STRUCTURES[name]
    # None: well formed only where thoughts may be missing.
    assert valid_structure(actions, think=True) is bool(valid)
    assert valid_structure(actions, think=False) is (valid is not False)


BLOCKS = [f"<{name}>x</{name}>" for name in ("think", "search", "answer")]
TAGS = [f"<{slash}{name}>" for name in ("think", "search", "answer") for slash in ("", "/")]


@given(st.lists(st.sampled_from([*BLOCKS, *TAGS, "x", " "]), max_size=6))
def test_structure_equals_a_regular_expression(pieces: list[str]) -> None:
    action = "".join(pieces)
    inside = r"(?:(?!</?(?:think|search|answer)>)[\s\S])*?"
    body = rf"(?=\s*[^\s<]){inside}"
    pattern = rf"\s*(?:<think>|(?!\s*<)){body}</think>\s*<answer>{body}</answer>\s*"
    assert valid_structure([action], think=True) == bool(re.fullmatch(pattern, action))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"it is \boxed{Paris}", "Paris"),
        (r"\boxed{a} then \boxed{ b{c}d }", "b{c}d"),
        (r"\boxed{a} then \boxed{b", "a"),
        (r"\boxed{", None),
        ("Paris", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_closed_box_is_the_answer(text: str, expected: str | None) -> None:
    assert boxed(text) == expected


async def test_an_arpo_answer_is_taken_from_its_box(files) -> None:
    env = CorpusSearchEnv(**files, prompt="arpo", rewards={"em": 1.0, "format": 1.0})
    await start(env)
    end = await env.step(rf"{THINK}<answer>He was born in \boxed{{Zavrazhye}}.</answer>")
    assert end.info.rewards == {"em": 1.0, "format": 1.0}
    await start(env)
    end = await env.step(f"{THINK}<answer>Zavrazhye</answer>")
    assert end.info.rewards == {"em": 1.0, "format": 0.0}
    assert env.answer_of(r"<answer>He was born in \boxed{Zavrazhye}.</answer>") == "Zavrazhye"
    assert env.answer_of("<answer>Zavrazhye</answer>") == "Zavrazhye"
    assert env.answer_of("<search>Zavrazhye</search>") is None


def test_both_environments_are_registered() -> None:
    assert {"search/corpus", "search/facts"} <= set(env_ids())
    assert isinstance(make_env("search/facts", hops=[2]), FactsSearchEnv)


@pytest.mark.slow
async def test_facts_of_the_world_are_found_and_answered() -> None:
    env = FactsSearchEnv()
    found = asked = 0
    for split in ("train", "eval"):
        tasks = env.tasks(split)
        assert len(tasks) >= 300
        assert {task.data["hops"] for task in tasks} == {1, 2, 3}
        for task in tasks[::40]:
            await env.reset(task, seed=0)
            for turn in range(5):
                result = await env.step(env.gold_action(task, turn) or "")
                if result.terminated:
                    break
            assert result.info.metrics["em"] == 1.0
            for query, id_ in zip(task.data["queries"], task.data["support"], strict=True):
                asked += 1
                found += (await env.retriever.search(query, 1))[0].id == id_
    assert found / asked > 0.98


@pytest.mark.slow
def test_no_evaluation_question_of_facts_starts_where_a_training_question_does() -> None:
    env = FactsSearchEnv()
    train, held = ({task.data["question"] for task in env.tasks(s)} for s in ("train", "eval"))
    assert train and held and not train & held

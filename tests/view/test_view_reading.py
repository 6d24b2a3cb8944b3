"""Folders are read part by part, what is damaged is named, and credit is what trained."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from view_folders import sample, small_run, write_evaluation, write_run

from agentrl import store
from agentrl.core.errors import DataError
from agentrl.core.types import ROOT, Group
from agentrl.testing.trees import chains, tree_of, wide_group
from agentrl.view.chunk import plain, tokens_chunk, trees_of, turns_chunk
from agentrl.view.index import Indexer, metrics_data
from agentrl.view.read import open_source, path_score


def indexed(folder):
    source = open_source(folder)
    indexer = Indexer(source)
    chunks = list(indexer.read())
    return source, indexer.data(), chunks


def test_a_run_is_listed_with_one_row_for_each_leaf(tmp_path):
    source, index, chunks = indexed(small_run(tmp_path / "run"))
    assert source.kind == "run" and [part.label for part in source.parts] == ["iteration 1"]
    assert len(index["rows"]["group"]) == 12 and index["groups"]["trees"] == [2, 2, 2]
    assert index["rows"]["group"] == sorted(index["rows"]["group"])
    assert index["rows"]["turns"] == [3] * 12 and index["score"] == {"": "em"}
    assert index["tools"] == ["search"] and len(chunks) == index["chunks"] == 1
    assert index["notes"] == []


def test_what_a_limit_ended_before_it_was_scored_counts_as_zero():
    tree = sample("a", score=0.75, turns=[("go", "seen"), ("say", "")]).tree
    assert path_score(tree, (0, 1), "correct") == path_score(tree, (0, 1), "reward") == 0.75
    assert path_score(tree, (0,), "correct") == 0.0


@pytest.mark.parametrize(("stored", "told"), [(True, "stored"), (False, "recipe")])
def test_credit_is_read_where_it_is_stored_and_else_computed_to_the_same(tmp_path, stored, told):
    groups = [chains([1.0, 0.0, 0.0], turns=2)]
    _, index, _ = indexed(write_run(tmp_path / "run", groups, credit=stored))
    # mean 1/3, sample deviation sqrt(1/3): 1.1547 for the winner, -0.57735 for the others.
    np.testing.assert_allclose(index["rows"]["credit"], [1.1547, -0.5774, -0.5774], atol=1e-3)
    assert index["creditFrom"] == told


def test_evaluations_of_a_run_have_no_credit(tmp_path):
    groups = [chains([1.0, 0.0])]
    folder = write_run(tmp_path / "run", groups, evaluated=groups)
    _, index, _ = indexed(folder)
    kinds = [index["parts"][part]["kind"] for part in index["groups"]["part"]]
    assert kinds == ["train", "eval"]
    assert index["rows"]["credit"][2:] == [None, None] and None not in index["rows"]["credit"][:2]


def test_credit_that_a_recipe_cannot_give_is_noted_and_the_trees_are_shown(tmp_path):
    folder = small_run(tmp_path / "run", credit=False)
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("type: grpo", "type: gropo"))
    _, index, _ = indexed(folder)
    assert len(index["rows"]["group"]) == 12 and index["creditFrom"] == ""
    assert [note["file"] for note in index["notes"]] == ["recipe.yaml"]


@pytest.mark.parametrize("text", ["learner: 3\ncredit: 7\npolicy: []\neval: x", "- a", "a: [", ""])
def test_a_recipe_that_is_none_is_a_note_at_most(tmp_path, text):
    folder = small_run(tmp_path / "run", credit=False)
    (folder / "recipe.yaml").write_text(text)
    _, index, _ = indexed(folder)
    assert len(index["rows"]["group"]) == 12 and set(index["rows"]["credit"]) == {None}
    assert "recipe.yaml" in {note["file"] for note in index["notes"]} or not text


@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_a_cut_file_of_trees_is_a_note_and_the_rest_is_there(tmp_path, kept):
    folder = small_run(tmp_path / "run")
    whole = (folder / "trees" / "iteration-000001.parquet").read_bytes()
    cut = folder / "trees" / "iteration-000002.parquet"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    _, index, _ = indexed(folder)
    assert len(index["rows"]["group"]) == 12
    (note,) = index["notes"]
    assert (
        note["file"] == "trees/iteration-000002.parquet" and "not a whole file" in note["message"]
    )


def test_a_broken_row_of_metrics_is_left_out_and_named(tmp_path):
    folder = small_run(tmp_path / "run")
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"iteration": 9, "x/nan": NaN, "x/text": "no"}\n{"cut"')
    source = open_source(folder)
    found = metrics_data(source)
    assert found["iteration"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found["values"]["rollout/reward_mean"][:2] == [0.1, 0.2]
    assert "x/nan" not in found["values"] and "x/text" not in found["values"]
    assert [(note.file, note.message.split(" is")[0]) for note in source.notes] == [
        ("metrics.jsonl", "line 10")
    ]


def test_a_folder_of_something_else_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"neither a run .* nor an evaluation"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_source(tmp_path / "missing")


def test_the_samples_of_an_evaluation_are_grouped_by_task_with_the_last_line_of_each(tmp_path):
    samples = [
        sample("a", 0, failure="environment"),
        sample("b", 0, score=0.0),
        sample("a", 1, score=0.0),
        sample("a", 0, score=1.0),
        sample("c", 0, failure="policy_server"),
    ]
    _, index, _ = indexed(write_evaluation(tmp_path / "ev", samples))
    tasks = [index["tasks"][task] for task in index["groups"]["task"]]
    assert tasks == ["a", "b", "c"]
    assert index["rows"]["score"] == [1, 0, 0, None]
    assert [index["failures"][one] for one in index["rows"]["failure"]] == [
        *("", "", ""),
        "policy_server",
    ]
    assert index["rows"]["sample"] == [0, 1, 0, 0]


def test_lines_that_are_no_samples_are_noted(tmp_path):
    folder = write_evaluation(tmp_path / "ev", [sample("a"), sample("b")])
    path = folder / "samples.jsonl"
    broken = json.dumps(
        {**json.loads(path.read_bytes().splitlines()[0]), "task_id": "x", "tree": 3}
    )
    path.write_text(path.read_text() + "{}\n" + broken + "\n" + '{"cut')
    _, index, _ = indexed(folder)
    assert [index["tasks"][one] for one in index["groups"]["task"]] == ["a", "b"]
    said = [note["message"] for note in index["notes"]]
    assert said[0].startswith("line 3 is no sample") and said[1] == "line 5 was cut by a kill"
    assert "is no sample (TypeError)" in said[2]


def test_an_evaluation_without_a_sample_says_so(tmp_path):
    folder = write_evaluation(tmp_path / "ev", [])
    (folder / "samples.jsonl").unlink()
    _, index, _ = indexed(folder)
    assert index["rows"]["group"] == [] and "no sample has finished" in index["notes"][0]["message"]


def test_turns_and_tokens_of_a_tree_by_hand(tmp_path):
    tree = tree_of([ROOT, 0, 0], {1: 1.0, 2: 0.0})
    tree.turns[2] = replace(tree.turns[2], versions=np.asarray([0, 1], np.int32))
    folder = tmp_path / "run"
    _, _, ((_, trees),) = indexed(write_run(folder, [chains([1.0]), Group("g", "task", (tree,))]))
    shown = turns_chunk(trees, None, probe=20)["groups"][1][0]
    assert shown["parents"] == [-1, 0, 0] and shown["n"] == [2, 2, 2] and shown["o"] == [1, 1, 1]
    assert shown["leaves"] == {"1": "terminated", "2": "terminated"}
    assert shown["reward"] == [0, 1, 0] and shown["H"] == [0.25] * 3
    assert shown["action"] == [None] * 3, "without a tokenizer there is no text"
    # Two leaves of a group: +-0.70711 each; the shared turn carries both, apart.
    np.testing.assert_allclose(shown["positive"], [0.70711, 0.70711, 0], atol=1e-4)
    np.testing.assert_allclose(shown["negative"], [-0.70711, 0, -0.70711], atol=1e-4)
    assert shown["weight"] == [2, 1, 1]
    tokens = tokens_chunk(trees)["groups"][1]
    assert tokens["prompts"] == [[1, 2, 3]] and tokens["trees"][0]["action"][1] == [10, 11]
    assert tokens["trees"][0]["logprob"][0] == [-0.5, -0.5]
    assert tokens["trees"][0]["version"] == [None, None, [0, 1]]


def test_text_of_a_file_that_holds_some_needs_no_tokenizer(tmp_path):
    groups = [wide_group(0, leaves=2, turns=2)]
    store.write(tmp_path / "x.parquet", groups, decode=lambda ids: f"{len(ids)} ids")
    _, index, ((_, trees),) = indexed(tmp_path / "x.parquet")
    shown = turns_chunk(trees, None, probe=20)["groups"][0][0]
    assert shown["prompt"] == "12 ids" and set(shown["action"]) == {"24 ids"}
    assert index["groups"]["preview"] == ["12 ids"]


def test_entropy_of_the_first_tokens_alone_is_shown(tmp_path):
    groups = [wide_group(1, leaves=1, turns=1, tokens=6)]
    (tree,) = groups[0].trees
    loaded = store.read(write_run(tmp_path / "run", groups) / "trees" / "iteration-000001.parquet")
    from agentrl.view.read import Loaded

    shown = turns_chunk(trees_of(Loaded(groups=loaded)), None, probe=2)["groups"][0][0]
    assert shown["H"][0] == pytest.approx(float(tree.turns[0].entropies[:2].mean()), abs=1e-4)
    assert shown["Hmean"][0] == pytest.approx(float(tree.turns[0].entropies.mean()), abs=1e-4)


def test_what_json_cannot_hold_becomes_text():
    assert plain({"a": float("nan"), 2: [float("inf"), 1, None, (True,)]}) == {
        "a": "nan",
        "2": ["inf", 1, None, [True]],
    }

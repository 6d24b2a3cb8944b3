"""Trees survive a round trip through Parquet, pandas alone opens them, and damage is named."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import store
from agentrl.core.errors import ContractError, DataError
from agentrl.core.types import ROOT, Failure, Group, StopReason, TrajectoryTree
from agentrl.credit import GrpoCredit, TurnTable, assign
from agentrl.testing.trees import chains, random_groups, tree_of


def plain(tree: TrajectoryTree) -> dict[str, object]:
    """Everything that a tree holds, as values that `==` compares."""
    turns = []
    for turn in tree.turns:
        fields = {name: getattr(turn, name) for name in turn.__slots__}
        turns.append(
            {
                name: (value.dtype.str, value.tolist()) if isinstance(value, np.ndarray) else value
                for name, value in fields.items()
            }
        )
    prompt = (tree.prompt_ids.dtype.str, tree.prompt_ids.tolist())
    return {
        "turns": turns,
        "prompt": prompt,
        **{
            name: getattr(tree, name)
            for name in ("task_id", "group_id", "seed", "parents", "leaves", "failures")
        },
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(0, 4))
def test_reading_gives_back_what_was_written(seed: int, size: int, tmp_path_factory) -> None:
    groups = random_groups(seed, n_groups=size)
    path = tmp_path_factory.mktemp("store") / "trees.parquet"
    store.write(path, groups)
    back = store.read(path)
    assert [(g.id, g.task_id, len(g.trees)) for g in back] == [
        (g.id, g.task_id, len(g.trees)) for g in groups
    ]
    for ours, theirs in zip(groups, back, strict=True):
        assert [plain(tree) for tree in ours.trees] == [plain(tree) for tree in theirs.trees]


def test_failed_trees_without_a_turn_and_groups_without_a_tree_are_kept(tmp_path) -> None:
    lost = TrajectoryTree("t", [4, 5], group_id="g", seed=2**62)
    lost.failures.append(Failure(ROOT, StopReason.ENGINE_ERROR, 'it said "no"\nand died'))
    groups = [Group("none", "t0", ()), Group("lost", "t", (lost,))]
    store.write(tmp_path / "x.parquet", groups)
    none, back = store.read(tmp_path / "x.parquet")
    assert none.trees == ()
    assert back.trees[0].failures == lost.failures
    assert back.trees[0].seed == 2**62
    assert back.trees[0].prompt_ids.tolist() == [4, 5]


def test_pandas_alone_reads_a_row_per_turn(tmp_path) -> None:
    path = tmp_path / "trees.parquet"
    group = Group("g", "t", (tree_of([ROOT, 0, 0], {1: 1.0, 2: 0.25}, tokens=[3, 2, 1]),))
    table = TurnTable.of([group])
    credit = assign(table, GrpoCredit(scale="none")).credit
    store.write(path, [group], credit=credit, decode=lambda ids: " ".join(map(str, ids)))
    frame = pd.read_parquet(path)
    turns = frame[frame.node >= 0]
    assert turns.node.tolist() == [0, 1, 2]
    assert turns.parent.tolist() == [-1, 0, 0]
    assert turns.depth.tolist() == [0, 1, 1]
    assert turns.stop_reason.tolist() == ["", "terminated", "terminated"]
    assert turns.reward.tolist() == [0.0, 1.0, 0.25]
    assert dict(turns.rewards.iloc[1]) == {"answer": 1.0}
    assert turns.action_ids.iloc[1].tolist() == [10, 11]
    assert turns.action_text.tolist() == ["0 1 2", "10 11", "20"]
    assert turns.weight.tolist() == [2.0, 1.0, 1.0]
    assert turns.positive.tolist() == [0.375, 0.375, 0.0]
    assert json.loads(turns.tool_calls.iloc[0]) == []
    root = frame[frame.node < 0]
    assert root.prompt_text.tolist() == ["1 2 3"]
    assert frame.reward.sum() == 1.25, "a root's row adds nothing"


def test_extra_columns_do_not_change_what_is_read(tmp_path) -> None:
    groups = random_groups(7)
    credit = assign(TurnTable.of(groups), GrpoCredit()).credit
    store.write(tmp_path / "a.parquet", groups)
    store.write(tmp_path / "b.parquet", groups, credit=credit, decode=str)
    first, second = store.read(tmp_path / "a.parquet"), store.read(tmp_path / "b.parquet")
    for ours, theirs in zip(first, second, strict=True):
        assert [plain(tree) for tree in ours.trees] == [plain(tree) for tree in theirs.trees]


def test_a_file_of_before_turns_had_metrics_and_versions_is_read(tmp_path) -> None:
    groups = [chains([1.0, 0.0], turns=3)]
    store.write(tmp_path / "a.parquet", groups)
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.drop_columns(["metrics", "versions"]), tmp_path / "b.parquet")
    for ours, theirs in zip(groups, store.read(tmp_path / "b.parquet"), strict=True):
        assert [plain(tree) for tree in ours.trees] == [plain(tree) for tree in theirs.trees]


def test_credit_of_other_groups_is_refused(tmp_path) -> None:
    credit = assign(TurnTable.of([chains([0.0, 1.0])]), GrpoCredit()).credit
    with pytest.raises(ContractError, match="credit is for 2 turns, the groups have 3"):
        store.write(tmp_path / "x.parquet", [chains([0.0, 1.0, 2.0])], credit=credit)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"x\.parquet: no such file of trajectories"):
        store.read(tmp_path / "x.parquet")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path, keep: float) -> None:
    path = tmp_path / "x.parquet"
    store.write(path, random_groups(3))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"x\.parquet: not a whole file of trajectories"):
        store.read(path)


def test_parquet_of_another_program_is_refused(tmp_path) -> None:
    path = tmp_path / "x.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(DataError, match=r"not trajectories in format 1 \(another program"):
        store.read(path)


def test_a_text_file_is_refused(tmp_path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("not parquet at all, whatever its name says")
    with pytest.raises(DataError, match="not a whole file of trajectories"):
        store.read(path)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.parquet"
    store.write(path, random_groups(1))
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyarrow.parquet.write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        store.write(path, random_groups(2))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["x.parquet"]


def test_a_segment_is_told_from_a_turn_and_older_files_have_none(tmp_path):
    tree = tree_of([ROOT, 0, 0], {1: 1.0})
    tree.turns[0] = replace(tree.turns[0], goes_on=True)
    file = tmp_path / "trees.parquet"
    store.write(file, [Group("g", "task", (tree,))])
    (found,) = store.read(file)
    assert plain(found.trees[0]) == plain(tree)
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["goes_on"]), file)
    (older,) = store.read(file)
    assert [turn.goes_on for turn in older.trees[0].turns] == [False] * 3

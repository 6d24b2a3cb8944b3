"""Sokoban: moves, rewards, the solver against a plain search, made levels, files, hostile text."""

from __future__ import annotations

import json
import random
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.env import ROOT_STATE
from agentrl.core.errors import DataError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.games.base import chosen_split
from agentrl.envs.games.sokoban_level import MOVES, read_level, read_levels
from agentrl.envs.games.sokoban_levels import made_levels, make_level
from agentrl.envs.games.sokoban_solver import is_dead, solve
from agentrl.testing import check_env

BOXOBAN = Path(__file__).resolve().parents[3] / "shared" / "data" / "sokoban_boxoban"
CORRIDOR = "#######\n#@ $ .#\n#######"


def task(grid: str, solution: str = "") -> Task:
    return Task("one", {"grid": grid, "solution": solution})


async def played(env, grid: str, *actions: str):
    await env.reset(task(grid), seed=0)
    return [await env.step(f"<answer>{one}</answer>") for one in actions]


async def test_a_push_onto_the_target_earns_what_gym_sokoban_gives() -> None:
    results = await played(make_env("games/sokoban"), CORRIDOR, "Right", "right", " RIGHT ")
    assert [one.reward for one in results] == pytest.approx([-0.1, -0.1, -0.1 + 1 + 10])
    assert results[-1].info.rewards == {"step": -0.1, "on_target": 1.0, "solved": 10.0}
    assert [one.terminated for one in results] == [False, False, True]
    assert results[-1].info.metrics == {"solved": 1.0, "moves": 3.0, "invalid_actions": 0.0}


async def test_a_push_off_the_target_costs_what_a_push_onto_it_gave() -> None:
    two = "########\n#@*  $.#\n########"
    (result,) = await played(make_env("games/sokoban"), two, "Right")
    assert result.info.rewards == {"step": -0.1, "off_target": -1.0}


async def test_a_move_against_a_wall_costs_a_step_and_one_against_two_boxes_moves_nothing() -> None:
    env = make_env("games/sokoban", symbols="xsb")
    two = "#######\n#@$$..#\n#######"
    up, right = await played(env, two, "Up", "Right")
    for result in (up, right):
        assert result.observation[0].text == f"State:\n{two}"
        assert result.info.rewards == {"step": -0.1}
        assert result.info.state_key == ROOT_STATE


async def test_the_grid_is_drawn_in_the_symbols_of_ragen() -> None:
    env = make_env("games/sokoban")
    (first,) = await env.reset(task("#######\n#+$ * #\n#  .$ #\n#######"), seed=0)
    assert first.text.endswith("State:\n#######\n#SX_√_#\n#__OX_#\n#######")


async def test_a_binary_reward_is_one_at_the_solution_and_nothing_before() -> None:
    env = make_env("games/sokoban", reward="binary")
    results = await played(env, CORRIDOR, "Right", "Right", "Right")
    assert [one.reward for one in results] == [0.0, 0.0, 1.0]


async def test_several_moves_a_turn_stop_at_the_solution_and_add_up() -> None:
    env = make_env("games/sokoban", actions_per_turn=4)
    (result,) = await played(env, CORRIDOR, "Right || Right||Right || Left")
    assert result.terminated
    assert result.info.rewards == {"step": pytest.approx(-0.3), "on_target": 1.0, "solved": 10.0}


@pytest.mark.parametrize("text", ["Right || Jump", "Right ||", "Right || Right || Right", "", "R"])
async def test_a_turn_with_a_mistake_moves_nothing(text) -> None:
    env = make_env("games/sokoban", actions_per_turn=2, invalid_reward=-0.5)
    (result,) = await played(env, CORRIDOR, text)
    assert result.info.rewards == {"invalid": -0.5}
    assert (result.info.malformed_calls, result.info.state_key) == (1, ROOT_STATE)


async def test_moves_end_at_the_limit_of_moves() -> None:
    env = make_env("games/sokoban", actions_per_turn=3, max_moves=2)
    (result,) = await played(env, CORRIDOR, "Left || Left || Right")
    assert (result.truncated, result.info.metrics["moves"]) == (True, 2.0)


async def test_state_keys_are_equal_exactly_for_equal_positions() -> None:
    env = make_env("games/sokoban")
    open_room = "######\n#@   #\n#  $.#\n#    #\n######"
    one = await played(env, open_room, "Right", "Down")
    other = await played(env, open_room, "Down", "Right")
    assert one[-1].info.state_key == other[-1].info.state_key
    back = await played(env, open_room, "Down", "Up")
    assert back[-1].info.state_key == ROOT_STATE
    keys = {result.info.state_key for result in (*one, *other, *back)}
    assert len(keys) == 4  # right, down, both, start


async def test_a_box_in_a_corner_ends_the_game_where_that_is_asked_for() -> None:
    corner = "######\n#    #\n#@$ .#\n#    #\n######"
    moves = ("Right", "Down", "Right")
    stuck = "#####\n# . #\n# $@#\n#   #\n#####"
    (lost,) = await played(make_env("games/sokoban", end_on_deadlock=True), stuck, "Left")
    assert (lost.terminated, lost.info.metrics["solved"]) == (True, 0.0)
    assert lost.observation[0].text.endswith("Lost: the boxes cannot all reach targets any more.")
    (goes_on,) = await played(make_env("games/sokoban"), stuck, "Left")
    assert not goes_on.terminated
    alive = await played(make_env("games/sokoban", end_on_deadlock=True), corner, *moves)
    assert not any(one.terminated for one in alive)


def fewest_pushes(grid: str, *, most: int = 20_000) -> int | None:
    """Breadth first over single moves, pushes counted: slow and plain."""
    level = read_level(grid)
    best = {level.start: 0}
    queue = deque([level.start])
    while queue and len(best) < most:
        position = queue.popleft()
        if level.solved(position.boxes):
            return best[position]
        for letter in MOVES:
            moved = level.move(position, letter)
            cost = best[position] + moved.pushed
            if cost < best.get(moved.position, 1 << 30):
                best[moved.position] = cost
                (queue.append if moved.pushed else queue.appendleft)(moved.position)
    return None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), boxes=st.integers(1, 2))
def test_the_solver_uses_the_fewest_pushes_and_its_moves_solve_the_level(seed, boxes) -> None:
    grid = make_level(seed, size=6, boxes=boxes)
    if not grid:
        return
    level, found = read_level(grid), solve(read_level(grid))
    position, pushes = level.start, 0
    for letter in found.moves:
        moved = level.move(position, letter)
        assert moved.position != position
        position, pushes = moved.position, pushes + moved.pushed
    assert level.solved(position.boxes)
    assert pushes == found.pushes == fewest_pushes(grid)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), walk=st.lists(st.sampled_from(MOVES), max_size=30))
def test_a_position_called_dead_has_no_solution(seed, walk) -> None:
    grid = make_level(seed, size=6, boxes=2)
    if not grid:
        return
    level = read_level(grid)
    position = level.start
    for letter in walk:
        position = level.move(position, letter).position
    if is_dead(level, position.boxes):
        assert fewest_pushes(level.write(position)) is None


def test_the_solver_says_whether_it_proved_that_there_is_no_solution() -> None:
    hopeless = read_level("#####\n#$  #\n# @.#\n#####")
    assert solve(hopeless)[:1] + solve(hopeless)[3:] == (None, True)
    grid = made_levels("train", 20, 10, 3, 200)[-1].grid
    bounded = solve(read_level(grid), max_states=1)
    assert (bounded.moves, bounded.exhausted) == (None, False)


def test_no_level_is_in_both_splits_or_twice() -> None:
    env = make_env("games/sokoban", train_tasks=100, eval_tasks=100)
    train, other = ([one.data["grid"] for one in env.tasks(split)] for split in ("train", "eval"))
    assert len(set(train)) == len(set(other)) == 100
    assert not set(train) & set(other)
    assert {chosen_split(grid) for grid in train} == {"train"}


async def test_made_levels_keep_the_contract_and_their_gold_actions_fit_the_turns() -> None:
    async def check(**args) -> None:
        await check_env(lambda: make_env("games/sokoban", train_tasks=8, eval_tasks=2, **args))

    await check()
    await check(size=8, boxes=2, actions_per_turn=5, tag="none", end_on_deadlock=True)
    await check(reward="binary", tag="action", invalid_reward=-0.1, max_moves=12)


@pytest.mark.parametrize("symbols", ["ragen", "xsb"])
def test_the_expert_follows_the_stored_solution_and_finds_back_to_one(symbols) -> None:
    env = make_env("games/sokoban", symbols=symbols, actions_per_turn=3)
    room = "#######\n#     #\n#@ $ .#\n#     #\n#######"
    one = task(room, "UURDRR" + "R")  # a detour that the solver would not take
    (first,) = env._reset(one, 0)
    assert env.expert_action(one, [first.text]) == "<answer>Up || Up || Right</answer>"
    start = f"<|im_start|>user\n{first.text}<|im_end|>\n"
    assert env.expert_action(one, [start]) == "<answer>Up || Up || Right</answer>"
    strayed = env._step("<answer>Down || Down || Right</answer>").observation[0].text
    found = env.expert_action(one, [first.text, strayed])
    while not env._over:
        result = env._step(found)
        found = env.expert_action(one, [result.observation[0].text])
    assert result.info.metrics["solved"] == 1.0
    assert env.expert_action(one, ["nothing to see"]) is None


def test_demonstrations_are_solved_episodes() -> None:
    env = make_env("games/sokoban", train_tasks=4)
    tasks = {env._reset(one, 0): one for one in env.tasks("train")}
    stream = env.demonstrations(seed=1)
    for _ in range(9):
        shown = next(stream)
        env._reset(tasks[shown.prompt], 0)
        for action, observation in shown.turns[:-1]:
            assert env._step(action).observation == observation
        assert shown.turns[-1][1] == ()
        assert env._step(shown.turns[-1][0]).info.metrics["solved"] == 1.0


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_levels_are_read_from_boxobans_text_and_from_rows(tmp_path) -> None:
    text = write(tmp_path, "000.txt", f"; 0\n{CORRIDOR}\n\n; 1\n####\n#@$.#\n####\n")
    rows = [{"id": 7, "grid": CORRIDOR, "solution": "RRR"}, {"grid": CORRIDOR}]
    lines = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(one.id, one.solution) for one in read_levels(text)] == [("000#0", ""), ("000#1", "")]
    assert [one.id for one in read_levels(lines)] == ["7", "a-1"]
    env = make_env("games/sokoban", levels=text, eval_levels=lines)
    assert [env.gold_action(env.tasks("train")[1], n) for n in (0, 1)] == [
        "<answer>Right</answer>",
        None,
    ]
    assert len(env.tasks("eval")) == 2
    assert make_env("games/sokoban", levels=text).tasks("eval") == ()


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("###\n#@x\n###", "line 2 of the grid has 'x' in column 3"),
        ("#####\n#@$ #\n#####", "1 players, 1 boxes, 0 targets"),
        ("#####\n# $.#\n#####", "0 players"),
        ("#####\n#@* #\n#####", "on a target already"),
    ],
)
def test_a_level_that_cannot_be_played_is_refused_with_its_place(tmp_path, grid, said) -> None:
    for path in (
        write(tmp_path, "b.txt", f"; 4\n{grid}\n"),
        write(tmp_path, "b.jsonl", json.dumps({"grid": grid})),
    ):
        with pytest.raises(DataError, match=said) as caught:
            read_levels(path)
        assert f"{path}:" in str(caught.value)


def test_other_mistakes_in_files_and_settings_are_named(tmp_path) -> None:
    bad = write(tmp_path, "c.jsonl", json.dumps({"grid": CORRIDOR, "solution": "RX"}))
    with pytest.raises(DataError, match=r"c.jsonl:1: 'solution' must be made of U, D, L, R"):
        read_levels(bad)
    with pytest.raises(DataError, match="no level in it"):
        read_levels(write(tmp_path, "d.txt", "; 0\n"))
    with pytest.raises(DataError, match="cannot be read"):
        read_levels(str(tmp_path / "none.txt"))
    for settings_ in ({"size": 4}, {"boxes": 9}, {"max_moves": 0}, {"actions_per_turn": 0}):
        with pytest.raises(RecipeError):
            make_env("games/sokoban", **settings_)
    with pytest.raises(DataError, match="allow more turns"):
        make_env("games/sokoban", max_turns=1, boxes=2, train_tasks=3).tasks("train")


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_the_game_or_moves_a_box_by_accident(text) -> None:
    env = make_env("games/sokoban", tag=random.Random(text).choice(["answer", "none", "action"]))
    env._reset(task(CORRIDOR), 0)
    result = env._step(text)
    assert result.info.malformed_calls == 1 or text.strip().lower() in ("up", "down")


@pytest.mark.slow
@pytest.mark.skipif(not BOXOBAN.is_dir(), reason=f"the Boxoban levels are not in {BOXOBAN}")
@pytest.mark.parametrize("name", ["unfiltered", "medium", "hard"])
def test_the_solver_finds_the_recorded_fewest_pushes_of_every_boxoban_level(name) -> None:
    rows = [json.loads(line) for line in (BOXOBAN / f"{name}.jsonl").read_text().splitlines()]
    found = {row["id"]: solve(read_level(row["grid"])).pushes for row in rows}
    assert found == {row["id"]: row["min_pushes"] for row in rows}
    assert len(found) == 600

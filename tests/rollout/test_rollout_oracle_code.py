"""Gold programs earn 1.0 and spoiled ones nothing, through the whole rollout path, on real data."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import zlib
from collections import Counter
from pathlib import Path

import pytest
from sweeps import SHARED_DATA, Script, exceptions, needs_data, swept

from agentrl.core.registry import make_env
from agentrl.envs.code import builtin
from agentrl.envs.code.inside import decode
from agentrl.samplers import TreeSampler

ORACLE: Script = "oracle"
SPOILED: Script = "spoiled_oracle"
AT_ONCE = 16
"""Episodes that are open at the same time."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.bubblewrap,
    pytest.mark.skipif(
        shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap"
    ),
]
DOCSTRING_FAULTS = {"HumanEval/47": "an example of its docstring is wrong"}
"""Rows whose solution fails what is visible; it is played again, and the hidden tests pass."""


def livecodebench(folder: Path) -> str:
    """The built-in problems as rows in LiveCodeBench's format, private tests packed as there."""
    rows = []
    for problem in (*builtin.problems("train"), *builtin.problems("eval")):
        tests: dict[str, list[dict[str, str]]] = {}
        for key, cases in (("public", problem.visible), ("private", problem.hidden)):
            tests[key] = [
                {"input": case.source, "output": str(case.expected), "testtype": "stdin"}
                if case.kind == "stdin"
                else {
                    "input": "\n".join(json.dumps(decode(arg)) for arg in case.args),
                    "output": json.dumps(decode(case.expected)),
                    "testtype": "functional",
                }
                for case in cases
            ]
        entry = problem.entry
        body = problem.solution.strip("\n").replace("\n", "\n        ")
        solution = (
            f"class Solution:\n    def {entry}(self, *args):\n        {body}\n"
            f"        return {entry}(*args)\n"
        )
        private = zlib.compress(pickle.dumps(json.dumps(tests["private"])))
        rows.append(
            {
                "question_title": problem.id,
                "question_content": problem.text,
                "platform": "leetcode" if entry else "atcoder",
                "question_id": problem.id,
                "contest_id": "own",
                "contest_date": "2026-01-01T00:00:00",
                "starter_code": f"class Solution:\n    def {entry}(self, *args):\n        "
                if entry
                else "",
                "difficulty": "easy",
                "public_test_cases": json.dumps(tests["public"]),
                "private_test_cases": base64.b64encode(private).decode(),
                "metadata": json.dumps({"func_name": entry} if entry else {}),
                "solution": solution if entry else problem.solution,
            }
        )
    path = folder / "livecodebench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@needs_data("humaneval")
async def test_a_solution_that_fails_a_wrong_example_is_played_again(tmp_path: Path) -> None:
    env = {"eval": str(SHARED_DATA / "humaneval" / "test.jsonl")}
    tasks = make_env("code/functions", **env).tasks("eval")
    some = [task for task in tasks if task.id in DOCSTRING_FAULTS] + list(tasks[:9])
    played = await swept("code/functions", env, folder=tmp_path, tasks=some, at_once=AT_ONCE)
    assert (len(played), exceptions(played, 1.0)) == (10, [])
    again = {one.tree.task_id for one in played if len(one.turns) > 1}
    assert again == set(DOCSTRING_FAULTS)


@pytest.mark.parametrize(("script", "wanted"), [(ORACLE, 1.0), (SPOILED, 0.0)])
async def test_the_built_in_problems_in_both_formats(
    script: Script, wanted: float, tmp_path: Path
) -> None:
    for split, count in (("train", 20), ("eval", 8)):
        played = await swept(
            "code/functions", folder=tmp_path, tasks=split, script=script, at_once=AT_ONCE
        )
        assert (len(played), exceptions(played, wanted)) == (count, [])
    env = {"eval": livecodebench(tmp_path)}
    played = await swept(
        "code/functions", env, folder=tmp_path, tasks="eval", script=script, at_once=AT_ONCE
    )
    assert (len(played), exceptions(played, wanted)) == (28, [])
    assert {len(one.turns) for one in played} == ({1} if script == ORACLE else {3})


@pytest.mark.parametrize(("script", "count"), [(ORACLE, 300), (SPOILED, 60)])
async def test_every_question_of_a_session(script: Script, count: int, tmp_path: Path) -> None:
    tasks = make_env("code/session").tasks("eval")[:count]
    played = await swept(
        "code/session", folder=tmp_path, tasks=tasks, script=script, at_once=AT_ONCE
    )
    assert len(played) == count
    if script == SPOILED:
        # Spoiled calls are no Python, and so is what is answered; some episodes are truncated.
        assert {one.episode_return for one in played} == {0.0}
    else:
        assert exceptions(played, 1.0) == []


TREE = TreeSampler(trees=1, expansions=6)


async def test_every_leaf_of_a_tree_of_sessions_is_right(tmp_path: Path) -> None:
    tasks = make_env("code/session").tasks("eval")[:15]
    played = await swept(
        "code/session", folder=tmp_path, tasks=tasks, sampler=TREE, at_once=AT_ONCE
    )
    assert set(Counter(one.tree.task_id for one in played).values()) == {7}
    assert exceptions(played, 1.0) == []


async def test_leaves_of_a_tree_whose_forks_are_broken_are_wrong(tmp_path: Path) -> None:
    tasks = make_env("code/session").tasks("eval")[:15]
    played = await swept(
        "code_envs:FreshForkSession", folder=tmp_path, tasks=tasks, sampler=TREE, at_once=AT_ONCE
    )
    returns = Counter(one.episode_return for one in played)
    assert returns[0.0] > 30, "an expert that reads what its session shows finds nothing there"
    assert returns[1.0] >= 15, "the chains that were not forked"

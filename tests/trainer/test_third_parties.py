"""Other people's packages, each driven through an iteration of training a new policy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "adapters"))

from peers import openenv_server, peer

from agentrl import store
from agentrl.core.types import StopReason
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

TESTS = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.peers]

RECIPE = """
name: third-party
runtime: local
env: {env}
policy: {{model: {model}}}
engine: {{type: transformers, max_batch: 8}}
sampler: {{type: arpo, trajectories: 4, initial: 2}}
credit: {{type: arpo}}
rollout:
  sampling: {{max_tokens_per_turn: 6}}
  limits: {{max_tokens: 2048, max_turns: 3, tool_seconds: 120, reset_seconds: 120}}
learner: {{threads: 1, pack_tokens: 2048, optimizer: {{learning_rate: 1.0e-3, warmup_steps: 0}}}}
train: {{iterations: 1, tasks_per_iteration: 2, save_every: 1}}
eval: {{at_start: false, at_end: false}}
log: {{trees: 1}}
"""


def trained(env: dict[str, object], small_policy: Path, tmp_path: Path) -> list[store.Group]:
    """Train for an iteration, check that it changed the policy, and return what was played."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(env=json.dumps(env), model=small_policy))
    out = tmp_path / "run"
    run(load(path), out=out)
    last = read_metrics(out / "metrics.jsonl")[-1]
    assert last["train/gradient_norm"] > 0
    before = (small_policy / "model.safetensors").read_bytes()
    assert (out / "policy" / "model.safetensors").read_bytes() != before
    (file,) = (out / "trees").glob("*.parquet")
    groups = list(store.read(file))
    leaves = [leaf for group in groups for leaf in group.trajectories()]
    assert len(leaves) == 8
    assert not any(leaf.stop_reason.is_failure for leaf in leaves)
    assert len({leaf.episode_return for leaf in leaves}) > 1
    return groups


def test_an_openenv_server(small_policy: Path, tmp_path: Path) -> None:
    with openenv_server() as url:
        env = {"id": f"openenv:{url}", "action_field": "word", "max_turns": 3}
        groups = trained(env, small_policy, tmp_path)
    turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
    assert any(turn.reward > 0 for turn in turns)
    assert max(len(tree.parents) for group in groups for tree in group.trees) > 3


def test_a_verifiers_environment(small_policy: Path, tmp_path: Path) -> None:
    env = {
        "id": f"isolated:{peer('verifiers')}:verifiers:vf_sums",
        "pythonpath": [str(TESTS.parent / "adapters")],
    }
    groups = trained(env, small_policy, tmp_path)
    leaves = [leaf for group in groups for leaf in group.trajectories()]
    assert {leaf.stop_reason for leaf in leaves} == {StopReason.TERMINATED}
    assert {name for leaf in leaves for name in leaf.turns[-1].rewards} == {
        "right",
        "short",
        "vowels",
    }


def test_an_mcp_server(small_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TESTS))
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"question": f"What time is it in city {n} when it is noon?", "answers": list("eiourstnl")}
        for n in range(4)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = {
        "id": "third_party_envs:EveryTextIsACall",
        "servers": [{"command": peer("mcp", "mcp-server-time"), "tools": ["convert_time"]}],
        "path": str(questions),
        "grade": "f1",
        "instructions": False,
    }
    groups = trained({**env, "grade": "cover"}, small_policy, tmp_path)
    turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
    called = [call for turn in turns for call in turn.tool_calls]
    assert len(called) >= 4 and {call.name for call in called} == {"convert_time"}

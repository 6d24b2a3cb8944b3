"""The rooms of CONTRIBUTING.md: who may import whom, and what is never loaded by accident."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    path for folder in ("agentrl", "envs", "tools") for path in (ROOT / folder).rglob("*.py")
)
# A room imports rooms of a lower rank only. Modules with a rank of their own: what others need of
# an engine (contract, settings, the file that weights travel in, whether it is alone in torch's
# process group), and where a rollout is put together.
RANK = {
    "core": 0,
    "graders": 1,
    "credit": 1,
    "filters": 1.5,
    "gym": 1,
    "sandbox": 1,
    "adapters": 2,
    "testing": 2,
    "envs": 2,
    "tools": 1.5,  # an environment may hand its policy a tool of that room
    "models": 2,
    "engine.base": 2,
    "engine.process_group": 2,
    "engine.settings": 2,
    "engine.weights": 2,
    "rollout": 3,
    "samplers": 4,
    "store": 4,
    "engine": 5,
    "learner": 5,
    "rollout.host": 6,
    "recipe": 7,
    "workers": 8,
    "evals": 8.5,
    "trainer": 9,
    "view": 9.5,
    "cli": 10,
    "__main__": 11,
}
HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed", "pandas", "datasets", "trl", "peft")
ONLY_IN = {
    "ray": ("workers",),
    "deepspeed": ("learner",),
    "vllm": ("engine",),
    "verifiers": ("adapters",),
    "docker": ("sandbox",),
    "gymnasium": ("gym",),
}
# The program is entered here: whatever it starts is imported when a command asks for it.
LIGHT = (
    "agentrl",
    "agentrl.cli",
    "agentrl.core.registry",
    "agentrl.engine.settings",
    "agentrl.envs",
    "agentrl.learner.settings",
    "agentrl.recipe.schema",
    "agentrl.adapters.envhost_pool",
    "agentrl.rollout.settings",
    "agentrl.samplers",
    "agentrl.credit",
    "agentrl.filters",
    "agentrl.tools",
)


def imports(path):
    """Every module that the file imports absolutely, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from agentrl import credit` and `from agentrl.engine import base` name a room last.
            bare = node.module == "agentrl" or node.module.removeprefix("agentrl.") in RANK
            found += [f"{node.module}.{alias.name}" for alias in node.names] if bare else []
            found += [] if bare else [node.module]
    return found


def room_of(parts):
    """The room of a module's dotted parts, below `agentrl` where it is there."""
    parts = parts[1:] if parts[0] == "agentrl" else parts
    if not parts:
        return None
    pair = ".".join(parts[:2])
    return pair if pair in RANK else parts[0]


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_room_imports_only_rooms_above_it(path):
    here = room_of(path.relative_to(ROOT).with_suffix("").parts)
    if path.name == "__init__.py" and path.parent == ROOT / "agentrl":
        return
    for module in imports(path):
        assert module.split(".")[0] not in ("envs", "tools", "recipes"), f"import agentrl.{module}"
        if not module.startswith("agentrl."):
            continue
        other = room_of(module.split("."))
        assert other in RANK, f"{module} is in no room"
        if other.split(".")[0] != here.split(".")[0]:
            assert RANK[other] < RANK[here], f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_is_heavy_is_imported_by_its_own_room(path):
    here = room_of(path.relative_to(ROOT).with_suffix("").parts)
    for module in imports(path):
        rooms = ONLY_IN.get(module.split(".")[0])
        assert rooms is None or here in rooms, f"only {rooms} may import {module}"


def test_nothing_heavy_is_loaded_by_the_settings_and_the_start_of_the_command_line():
    code = f"""
import sys
for module in {LIGHT!r}:
    __import__(module)
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_folder_of_the_checkout_hides_inside_the_package():
    assert not [room for room in ("envs", "tools", "recipes") if (ROOT / "agentrl" / room).exists()]

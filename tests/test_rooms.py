"""Which room may import which, where heavy packages may be imported, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path
    for folder in ("agentrl", "envs", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)

RANK = {
    "core": 0,
    "graders": 1, "credit": 1, "engine": 1, "models": 1,
    "rollout": 2, "envs": 2, "tools": 2, "gym": 2, "testing": 2, "store": 2, "learner": 2,
    "samplers": 3,
    "recipe": 4,
    "workers": 5,
    "trainer": 6,
    "cli": 7,
    "__main__": 8,
}  # fmt: skip

NARROW = {"envs": {"core", "graders"}, "tools": {"core", "graders"}}
"""Plug-ins import less than their rank allows."""

UPWARD = {("agentrl/rollout/host.py", "samplers")}
"""Imports inside a function that go up: a host plays the samplers that it is given by recipes."""

HOMES = {
    "ray": {"workers"},
    "deepspeed": {"learner"},
    "vllm": {"engine"},
    "torch": {"engine", "learner", "models"},
    "peft": {"learner"},
}
"""The only rooms that import a package at all, at module level or inside of a function."""

HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed", "pandas", "peft", "datasets")
TOP_LEVEL = {"torch": {"engine", "learner", "models"}, "ray": {"workers"}}
"""The only rooms that import a heavy package at module level."""

LIGHT = (
    "agentrl", "agentrl.cli", "agentrl.cli.env", "agentrl.core.registry", "agentrl.credit",
    "agentrl.engine.settings", "agentrl.envs", "agentrl.envs.demo", "agentrl.gym",
    "agentrl.learner.batch", "agentrl.learner.settings", "agentrl.recipe.schema",
    "agentrl.rollout.settings", "agentrl.samplers", "agentrl.testing", "agentrl.tools",
)  # fmt: skip


class Imported(NamedTuple):
    """A module that a file imports, and whether on import of the file itself."""

    name: str
    at_module_level: bool


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] != "agentrl" else parts[1]


def imports(path: Path) -> list[Imported]:
    return list(_imports(ast.parse(path.read_text()), True))


def _imports(node: ast.AST, at_module_level: bool) -> Iterator[Imported]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Imported(alias.name, at_module_level)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            whole = child.module != "agentrl"
            for alias in child.names:
                name = child.module if whole else f"agentrl.{alias.name}"
                yield Imported(name, at_module_level)
        else:
            late = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from _imports(child, at_module_level and not late and not typing)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_doors_open_downwards(path):
    room = room_of(path)
    if room == "__init__":
        assert not any(one.name.startswith("agentrl.") for one in imports(path))
        return
    for one in imports(path):
        parts = one.name.split(".")
        assert parts[0] not in ("envs", "tools", "recipes"), f"import agentrl.{one.name} instead"
        if parts[0] != "agentrl" or len(parts) < 2 or parts[1] in (room, "__version__"):
            continue
        other = parts[1]
        if not one.at_module_level and (relative(path), other) in UPWARD:
            continue
        assert RANK[other] < RANK[room], f"{relative(path)} ({room}) imports {one.name}"
        assert other in NARROW.get(room, RANK), f"{relative(path)} ({room}) imports {one.name}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_heavy_packages_stay_in_their_rooms(path):
    room = room_of(path)
    for one in imports(path):
        package = one.name.split(".")[0]
        assert room in HOMES.get(package, {room}), f"{relative(path)} imports {one.name}"
        if one.at_module_level and package in HEAVY:
            assert room in TOP_LEVEL.get(package, set()), f"{relative(path)}: import it later"


def test_no_import_is_excused_without_need():
    for file, other in UPWARD:
        found = imports(ROOT / file)
        assert any(one.name.startswith(f"agentrl.{other}") for one in found), (file, other)


def test_a_planted_violation_is_found(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    import torch\nfrom agentrl import trainer\n")
    assert imports(planted) == [Imported("torch", False), Imported("agentrl.trainer", True)]


def test_the_checkout_has_no_second_copy_of_the_plug_in_folders():
    for folder in ("envs", "tools", "recipes"):
        assert not (ROOT / "agentrl" / folder).exists()


def test_light_modules_load_nothing_heavy():
    probe = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_importing_agentrl_itself_loads_only_the_standard_library():
    probe = (
        "import sys; before = set(sys.modules); import agentrl; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "['agentrl']", done.stdout + done.stderr


@pytest.mark.parametrize("name", ["envs", "tools"])
def test_a_plug_in_folder_cannot_be_imported_by_its_bare_name(name):
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, cwd=ROOT
    )
    assert f"import agentrl.{name}, not {name}" in done.stderr

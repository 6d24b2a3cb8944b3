"""The wheel holds every file under its import name and nothing else, and works where it is put."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import agentrl

ROOT = Path(__file__).resolve().parents[1]
PLACES = {
    "agentrl": "agentrl",
    "envs": "agentrl/envs",
    "tools": "agentrl/tools",
    "recipes": "agentrl/recipes",
}
"""Folders of the checkout and where they lie in the wheel."""

INFO = f"agentrl-{agentrl.__version__}.dist-info"

pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index")
    run(*pip, "--target", str(target), str(wheel), cwd=target)
    return target


def test_the_wheel_holds_every_file_under_its_import_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    files = {name for name in names if not name.startswith(INFO)}
    expected = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in PLACES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == expected
    assert {name.split("/")[0] for name in names} == {"agentrl", INFO}
    assert {
        "agentrl/py.typed",
        "agentrl/envs/__init__.py",
        "agentrl/tools/search.py",
        "agentrl/recipes/arpo_search.yaml",
        "agentrl/recipes/grpo_search.yaml",
        "agentrl/recipes/sft_search.yaml",
        f"{INFO}/licenses/LICENSE",
    } <= set(names)


def test_the_wheel_installs_one_name_and_the_command(installed):
    assert {path.name for path in installed.iterdir()} == {"agentrl", INFO, "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["agentrl"]


def test_an_installed_wheel_imports_its_plug_ins_from_anywhere(installed, tmp_path):
    # A working directory with folders of the same names, which must hide nothing.
    for folder in ("envs", "tools", "recipes"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise AssertionError('the wrong one')\n")
    probe = (
        "import agentrl, agentrl.envs, agentrl.tools.search, agentrl.envs.search\n"
        "from agentrl.core.registry import env_class\n"
        "from agentrl.recipe.source import find_recipe\n"
        "print(agentrl.__file__, agentrl.envs.__file__, agentrl.tools.search.__file__)\n"
        "print(list(agentrl.__path__), find_recipe('arpo_search'))\n"
        "print(env_class('search/facts').__module__)\n"
    )
    told = run(sys.executable, "-c", probe, cwd=tmp_path, PYTHONPATH=str(installed))
    inside = str(installed / "agentrl")
    assert told.splitlines() == [
        f"{inside}/__init__.py {inside}/envs/__init__.py {inside}/tools/search.py",
        f"['{inside}'] {inside}/recipes/arpo_search.yaml",
        "agentrl.envs.search.env",
    ]


def test_the_command_of_an_installed_wheel_runs_from_anywhere(installed, tmp_path):
    where = {"PYTHONPATH": str(installed), "COLUMNS": "200"}
    command = (sys.executable, str(installed / "bin" / "agentrl"))
    assert run(*command, "--version", cwd=tmp_path, **where) == f"agentrl {agentrl.__version__}\n"
    listed = run(*command, "env", "list", cwd=tmp_path, **where)
    assert "agentrl.envs.search:FactsSearchEnv" in listed
    script = "print(__import__('agentrl.cli.app').__file__)"
    assert str(installed) in run(sys.executable, "-c", script, cwd=tmp_path, **where)


def test_the_policy_that_the_package_brings_is_in_the_wheel(installed):
    found = sorted(path.name for path in (installed / "agentrl/models/tiny_search").glob("*"))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found)

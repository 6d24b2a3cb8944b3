"""A checkpoint is whole or absent, whatever moment its writing is cut at."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from agentrl.core.errors import CheckpointError, RecipeError
from agentrl.recipe.load import load
from agentrl.trainer.checkpoint import Checkpoints, read_checkpoint
from agentrl.trainer.run import run, run_folder


def write_numbers(folder: Path) -> None:
    (folder / "learner").mkdir()
    for index in range(8):
        (folder / "learner" / f"{index}.bin").write_bytes(bytes([index]) * 200_000)


def test_a_saved_checkpoint_is_read_back_and_old_ones_are_pruned(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, {"iteration": step}, write_numbers)
    assert [path.name for path in checkpoints.complete()] == ["step-000002", "step-000003"]
    latest = checkpoints.latest()
    assert latest is not None
    assert read_checkpoint(latest) == {"iteration": 3}
    assert (latest / "learner" / "7.bin").read_bytes() == b"\x07" * 200_000


def test_the_same_step_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"iteration": 1, "try": 1}, write_numbers)
    folder = checkpoints.save(1, {"iteration": 1, "try": 2}, write_numbers)
    assert read_checkpoint(folder)["try"] == 2
    assert not list(tmp_path.glob(".tmp-*"))


class KilledError(BaseException):
    """Stands for a kill: nothing of ours may catch it."""


def test_whatever_a_save_is_killed_at_there_is_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """Before each of its calls that change a folder, with the same step there already or not."""

    def write(folder: Path) -> None:
        (folder / "learner").mkdir()
        (folder / "learner" / "weights.bin").write_bytes(b"w")

    def killed_at(call: int, checkpoints: Checkpoints, step: int) -> bool:
        left = call

        def counting(function):
            def called(*arguments, **options):
                nonlocal left
                left -= 1
                if left < 0:
                    raise KilledError
                return function(*arguments, **options)

            return called

        with pytest.MonkeyPatch.context() as patch:
            for name in ("mkdir", "rename", "unlink", "rmdir", "fsync"):
                patch.setattr(os, name, counting(getattr(os, name)))
            try:
                checkpoints.save(step, {"iteration": step, "try": 2}, write)
            except KilledError:
                return True
        return False

    for step in (1, 2):
        call = 0
        while True:
            folder = tmp_path / f"{step}-{call}"
            checkpoints = Checkpoints(folder, keep=1)
            checkpoints.save(1, {"iteration": 1, "try": 1}, write)
            was_killed = killed_at(call, checkpoints, step)
            latest = Checkpoints(folder).latest()
            assert latest is not None, f"killed before call {call}"
            found = read_checkpoint(latest)
            assert (found["iteration"], found["try"]) in {(1, 1), (step, 2)}
            checkpoints.save(found["iteration"], found, write)
            assert [path.name for path in folder.iterdir()] == [f"step-{found['iteration']:06d}"]
            if not was_killed:
                assert found["try"] == 2
                break
            call += 1
        assert call > 12


def test_a_checkpoint_that_is_being_deleted_is_none_any_more(tmp_path: Path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"iteration": 1}, write_numbers)

    def busy(*arguments, **options) -> None:
        raise OSError("a file of it is still open elsewhere")

    monkeypatch.setattr(os, "unlink", busy)
    checkpoints.save(2, {"iteration": 2}, write_numbers)
    assert [path.name for path in checkpoints.complete()] == ["step-000002"]


def test_a_failed_write_leaves_the_older_checkpoint_the_latest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"iteration": 1}, write_numbers)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        checkpoints.save(2, {"iteration": 2}, fail)
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.name == "step-000001"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "manifest.json").unlink(), "its writing was cut in the middle"),
        (lambda p: (p / "learner" / "3.bin").unlink(), "listed in manifest.json but missing"),
        (lambda p: os.truncate(p / "learner" / "3.bin", 1000), "truncated or changed"),
        (lambda p: (p / "state.json").write_text("{"), "truncated or changed"),
        (lambda p: (p / "manifest.json").write_text('{"a"'), "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_file_named(
    tmp_path: Path, damage, message: str
) -> None:
    folder = Checkpoints(tmp_path).save(5, {"iteration": 5}, write_numbers)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "step-000009")


def test_the_folder_to_resume_is_the_newest_that_has_a_checkpoint(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load("grpo_search")
    with pytest.raises(CheckpointError) as caught:
        run_folder(recipe, out=None, resume=True)
    told = "; name the run with --out, or start one without --resume"
    assert str(caught.value) == f"nothing to resume: no folder runs/grpo_search-*{told}"
    runs = [Path("runs", f"grpo_search-2026010{day}-000000") for day in (1, 2, 3)]
    runs[2].mkdir(parents=True)
    with pytest.raises(CheckpointError) as caught:
        run_folder(recipe, out=None, resume=True)
    assert str(caught.value) == (
        f"nothing to resume: no folder runs/grpo_search-* has a checkpoint (1 without){told}"
    )
    for folder in runs[:2]:
        Checkpoints(folder / "checkpoints").save(1, {"iteration": 1}, write_numbers)
    assert run_folder(recipe, out=None, resume=True) == runs[1]
    assert run_folder(recipe, out=runs[2], resume=True) == runs[2]
    with pytest.raises(CheckpointError, match="nothing to resume: there is no folder elsewhere"):
        run_folder(recipe, out=Path("elsewhere"), resume=True)
    (runs[2] / "metrics.jsonl").write_text("")
    with pytest.raises(RecipeError, match="holds a run already"):
        run_folder(recipe, out=runs[2], resume=False)


def test_a_resumed_run_may_not_change_what_is_scored_or_on_which_tasks(tmp_path) -> None:
    """Groups are chosen by `eval.score`, and the gain is over the tasks of the first evaluation."""
    state = {"recipe": load("grpo_search").model_dump(mode="json")}
    Checkpoints(tmp_path / "checkpoints").save(1, state, write_numbers)
    other = load(
        "grpo_search",
        ["eval.score=other", "eval.tasks=3", "eval.split=train", "eval.every=7", "eval.samples=3"],
    )
    with pytest.raises(CheckpointError, match=r"differs in eval.score, eval.split, eval.tasks\)"):
        run(other, out=tmp_path, resume=True, plain=True)


def _save_for_ever(folder: Path) -> None:
    checkpoints = Checkpoints(folder, keep=2)
    for step in range(1, 10_000):
        checkpoints.save(step, {"iteration": step}, write_numbers)


def test_a_kill_in_the_middle_of_a_write_loses_at_most_that_checkpoint(tmp_path: Path) -> None:
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")
    survived = 0
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        process = context.Process(target=_save_for_ever, args=(folder,))
        process.start()
        while not Checkpoints(folder).complete():
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.05))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        latest = Checkpoints(folder).latest()
        assert latest is not None
        state = read_checkpoint(latest)
        assert latest.name == f"step-{state['iteration']:06d}"
        survived += 1
    assert survived == 10

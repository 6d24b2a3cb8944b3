"""Folders of runs and evaluations that are made up, and Chromium to look at their pages."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from agentrl import store
from agentrl.core.types import ROOT, Group, StopReason, ToolRecord, TrajectoryTree, Turn
from agentrl.credit import GrpoCredit, TurnTable, assign
from agentrl.evals.samples import Key, Sample, SampleLog, TurnText
from agentrl.testing.trees import wide_group

BROWSER = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="apt-get install chromium"),
]


def write_run(
    folder: Path,
    groups: Sequence[Group],
    *,
    credit: bool = True,
    iteration: int = 1,
    sampler: dict[str, object] | None = None,
    evaluated: Sequence[Group] = (),
) -> Path:
    """A finished run's folder with one iteration of trees, metrics and a recipe."""
    settings = {
        "name": folder.name,
        "env": {"id": "search/facts"},
        "policy": {"model": "tiny/search"},
        "sampler": sampler or {"type": "chain", "trajectories": 2},
        "credit": {"type": "grpo"},
        "eval": {"score": "em"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    rows = [
        {"iteration": i, "time": 100.0 + i, "rollout/reward_mean": 0.1 * i, "train/loss": 1.0 / i}
        | {"train/rate": 3e-4, "train/noise": 3e-4 + i * 1e-17}
        for i in range(1, 9)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = assign(TurnTable.of(groups), GrpoCredit()).credit if credit else None
    store.write(folder / "trees" / f"iteration-{iteration:06d}.parquet", groups, credit=values)
    if evaluated:
        store.write(folder / "trees" / f"eval-{iteration:06d}.parquet", evaluated)
    return folder


def small_run(folder: Path, **settings: object) -> Path:
    """Three groups of four trajectories."""
    groups = [wide_group(seed, leaves=4, turns=3, trees=2, name=f"t{seed}") for seed in range(3)]
    return write_run(folder, groups, **settings)  # type: ignore[arg-type]


def sample(
    task: str,
    number: int = 0,
    *,
    score: float = 1.0,
    turns: Sequence[tuple[str, str]] = (("said", "seen"),),
    prompt: str = "asked",
    failure: str = "",
    arguments: dict[str, object] | None = None,
) -> Sample:
    """A sample of suite `toy@1`, in text."""
    tree = TrajectoryTree(task, np.asarray([65, 66], np.int32), group_id=task, seed=number)
    node = ROOT
    for index in range(0 if failure else len(turns)):
        last = index == len(turns) - 1
        made = ToolRecord("look", arguments or {"at": index}, ok=index == 0, seconds=0.5)
        node = tree.add(
            node,
            Turn(
                action_ids=np.asarray([70], np.int32),
                logprobs=np.asarray([-0.5], np.float32),
                entropies=np.asarray([0.25], np.float32),
                entropy_kind="none",
                reward=score if last else 0.0,
                rewards={"correct": score} if last else {},
                tool_calls=(made,),
            ),
        )
    if node != ROOT:
        tree.end(node, StopReason.TERMINATED)
    return Sample(
        key=Key("toy@1", task, number),
        seed=number,
        scores={} if failure else {"correct": score, "reward": score},
        stop_reason=StopReason.ENV_ERROR if failure else StopReason.TERMINATED,
        failure=failure,  # type: ignore[arg-type]
        error="the server hung up" if failure else "",
        answers=("42",) if not failure else (),
        turns=len(tree.turns),
        prompt=prompt,
        texts=() if failure else tuple(TurnText(*turn) for turn in turns),
        tree=tree,
    )


def write_evaluation(folder: Path, samples: Sequence[Sample], *, model: str = "") -> Path:
    """A folder of an evaluation of suite `toy@1`."""
    folder.mkdir(parents=True, exist_ok=True)
    suite = {"name": "toy", "version": 1, "env": "toy", "score": "correct"}
    plan = {"policy": "scripted:oracle", "model": model, "suites": [suite]}
    (folder / "plan.json").write_text(json.dumps(plan))
    log = SampleLog(folder / "samples.jsonl")
    for one in samples:
        log.append(one)
    log.close()
    return folder


@contextmanager
def chromium(**settings: object) -> Iterator[object]:
    """A page of a real browser; what it asks of any network fails and is noted in `asked`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        page = watched(browser, **settings)
        try:
            yield page
        finally:
            browser.close()


def watched(browser, **settings: object):
    """A page that notes its errors, dialogs and requests."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}, **settings).new_page()
    page.errors, page.asked, page.dialogs = [], [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else 0)
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
    return page


def until(page, expression: str, arg: object = None) -> None:
    """Wait until an expression is true; Playwright's own waiting would need `eval` in the page."""
    end = time.monotonic() + 30
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def look(page, file: Path, place: str = "") -> None:
    """Open a file of the viewer at `place` (what follows '#') and wait until it is drawn."""
    page.goto("about:blank")
    page.goto(f"file://{file}" + (f"#{place}" if place else ""))
    page.wait_for_selector('html[data-ready="1"]', timeout=30_000)

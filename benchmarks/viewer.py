"""How quick the viewer is with 10,000 trajectories: its file's size, first paint, filters, a tree.

    python benchmarks/viewer.py [--trajectories 10000] [--keep FILE]

Everything is measured in headless Chromium on a page opened by file://. The floor beside the
first paint is the same browser on a file of the same size that holds no program.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Page, sync_playwright

from agentrl import store
from agentrl.credit import GrpoCredit, TurnTable, assign
from agentrl.testing.trees import wide_group
from agentrl.view.page import write_page
from agentrl.view.read import open_source

REPEATS = 5
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
READY = "performance.getEntriesByName('ready')[0]?.startTime ?? null"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--trajectories", type=int, default=10_000)
    options.add_argument("--keep", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run(folder / "run", asked.trajectories)
        started = time.perf_counter()
        file = folder / "page.html"
        written = write_page(file, [open_source(folder / "run")])
        took = time.perf_counter() - started
        print(f"{written.trajectories} trajectories: {written.bytes / 2**20:.1f} MiB, {took:.1f} s")
        measure(file, folder / "floor.html")
        if asked.keep:
            shutil.copy(file, asked.keep)


def run(folder: Path, trajectories: int) -> None:
    """A run of groups of eight, and one group with a tree of 64 leaves."""
    groups = [wide_group(0, leaves=64, turns=5, name="sixty-four")]
    groups += [
        wide_group(seed, leaves=8, trees=2, turns=3, name=f"task-{seed}")
        for seed in range(1, max(1, (trajectories - 64) // 8) + 1)
    ]
    settings = {"credit": {"type": "grpo"}, "policy": {"model": "tiny/search"}}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**settings, "eval": {"score": "em"}}))
    for number, start in enumerate(range(0, len(groups), 64), start=1):
        part = groups[start : start + 64]
        credit = assign(TurnTable.of(part), GrpoCredit()).credit
        path = folder / "trees" / f"iteration-{number:06d}.parquet"
        store.write(path, part, credit=credit)


def measure(file: Path, floor: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        size = file.stat().st_size
        floor.write_text("<!doctype html><p>a page</p><script type=x>" + "A" * size + "</script>")
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        told("first paint, floor", [opened(page, floor, "")[0] for _ in range(REPEATS)])
        for name, place in {"overview": "/overview", "list": "/trajectories?unit=rows"}.items():
            times = [opened(page, file, place) for _ in range(REPEATS)]
            told(f"{name}: first paint", [one[0] for one in times])
            told(f"{name}: everything drawn", [one[1] for one in times])
        changed(page, "filter by outcome", ["2", "1", ""], "outcome")
        changed(page, "filter by turns", ["2", "4", ""], "tmin")
        changed(page, "sort by credit", ["credit", "tokens", "order"], "sort")
        changed(page, "search, first (reads all text)", ["the"], "q")
        changed(page, "search, then", ["capital", "city of", "xyzzy"], "q")
        opened(page, file, "/trajectories?g=0")
        times = [page.evaluate(TREE) for _ in range(REPEATS)]
        told("tree of 64 leaves, drawn again", times)
        browser.close()


TREE = """async () => {
  const start = performance.now();
  const on = document.querySelector('.forest .segments .on');
  (on.nextElementSibling || on.previousElementSibling).click();
  document.querySelector('svg.tree').getBoundingClientRect();
  return performance.now() - start;
}"""

CHANGE = """async ([name, value]) => {
  const before = document.getElementById('counts').firstChild;
  const start = performance.now();
  const query = new URLSearchParams(location.hash.split('?')[1] || '');
  query.set(name, value);
  history.replaceState(null, '', '#/trajectories?' + query);
  dispatchEvent(new PopStateEvent('popstate'));
  for (;;) {
    const now = document.getElementById('counts');
    if (now && now.firstChild !== before) break;
    await new Promise((done) => setTimeout(done));
  }
  document.querySelector('.scroller').getBoundingClientRect();
  return performance.now() - start;
}"""


def opened(page: Page, file: Path, place: str) -> tuple[float, float]:
    """Milliseconds to the first paint and until everything is drawn."""
    page.goto("about:blank")
    page.goto(f"file://{file}" + (f"#{place}" if place else ""))
    if place:
        page.wait_for_selector('html[data-ready="1"]')
    while (painted := page.evaluate(PAINT)) is None:
        page.wait_for_timeout(5)
    return painted, page.evaluate(READY) or 0.0


def changed(page: Page, what: str, values: list[Any], name: str) -> None:
    told(what, [page.evaluate(CHANGE, [name, value]) for value in values])


def told(what: str, milliseconds: list[float]) -> None:
    median = statistics.median(milliseconds)
    print(f"{what:34} {median:8.1f} ms   (worst {max(milliseconds):.1f})")


if __name__ == "__main__":
    main()

"""`kill -9` at random moments of a run, resumed each time, beside the same run uninterrupted.

    python benchmarks/kill_ten.py RECIPE [KEY=VALUE ...] [--kills 10] [--seed 0] [--out FOLDER]

Each kill ends the whole process group at once, in turn: somewhere after the start (workers may
not be up yet), somewhere in the iteration after a new checkpoint, and while a checkpoint is being
written. After the last kill the run is resumed to its end. All metrics that are no times are
compared, iteration by iteration, and processes that outlive a kill are counted. Exits with 1
when anything differs or survives. The recipe should save often (`train.save_every=1`).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from agentrl.trainer.metrics import read_metrics

POLL_SECONDS = 0.0005
GONE_SECONDS = 20.0


class Kill(NamedTuple):
    """One kill: the moment's kind, what was on disk then, and processes that survived it."""

    moment: str
    seconds: float
    checkpoint: str
    in_writing: bool
    survivors: int


class Comparison(NamedTuple):
    """The non-time metrics of two runs: values compared, iterations, and where they differ."""

    values: int
    iterations: int
    differences: list[str]


def command(options: argparse.Namespace, out: Path, *, resume: bool) -> list[str]:
    arguments = [options.recipe, *options.overrides, "--out", str(out)]
    return [
        *(sys.executable, "-m", "agentrl", "run", *arguments),
        *(["--resume"] if resume else []),
    ]


def finish(arguments: list[str]) -> float:
    """Run to the end; seconds."""
    started = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
    return time.monotonic() - started


def newest(out: Path) -> str:
    """Name of the newest finished checkpoint."""
    return max((path.name for path in (out / "checkpoints").glob("step-*")), default="none")


def writing(out: Path, pid: int) -> bool:
    """True while process `pid` writes a checkpoint; what an earlier kill left is another's."""
    return any((out / "checkpoints").glob(f".tmp-step-*-{pid}"))


def kill_once(arguments: list[str], out: Path, moment: str, delay: float) -> Kill | None:
    """Start, wait for `moment` and `delay` seconds more, kill; None when it ended before."""
    had, started = newest(out), time.monotonic()
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    reached: dict[str, Callable[[], bool]] = {
        "anywhere": lambda: True,
        "iteration": lambda: newest(out) != had,
        "checkpoint": lambda: newest(out) != had and writing(out, process.pid),
    }
    while process.poll() is None and not reached[moment]():
        time.sleep(POLL_SECONDS)
    time.sleep(delay)
    if process.poll() is not None:
        return None
    under = [
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        # Two agents of Ray's own report to its head for a minute before they see that it is gone.
        if not " ".join(one.cmdline()).strip().endswith("Agent")
    ]
    os.killpg(process.pid, signal.SIGKILL)
    in_writing, checkpoint = writing(out, process.pid), newest(out)
    process.wait()
    seconds = time.monotonic() - started
    _, alive = psutil.wait_procs(under, timeout=GONE_SECONDS)
    return Kill(moment, seconds, checkpoint, in_writing, len(alive))


def numbers(out: Path) -> list[dict[str, Any]]:
    """Every metric that is not a time."""
    return [
        {k: v for k, v in row.items() if "time" not in k and "second" not in k}
        for row in read_metrics(out / "metrics.jsonl")
    ]


def compare(whole: Path, killed: Path) -> Comparison:
    expected, found = numbers(whole), numbers(killed)
    differences = []
    if [row["iteration"] for row in expected] != [row["iteration"] for row in found]:
        differences.append(f"{len(expected)} iterations, {len(found)} in the killed run")
    for left, right in zip(expected, found, strict=False):
        for name in sorted(left.keys() | right.keys()):
            if left.get(name) != right.get(name):
                where = f"iteration {left['iteration']}, {name}"
                differences.append(f"{where}: {left.get(name)} became {right.get(name)}")
    return Comparison(sum(map(len, expected)), len(expected), differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    base = options.out or Path(tempfile.mkdtemp(prefix="agentrl-kills-"))
    whole, killed = base / "whole", base / "killed"
    seconds = finish(command(options, whole, resume=False))
    print(f"uninterrupted: {len(numbers(whole))} rows of metrics in {seconds:.1f} s")
    kills: list[Kill] = []
    for number in range(options.kills):
        moment = ("anywhere", "iteration", "checkpoint")[number % 3]
        longest = {"anywhere": seconds / 2, "iteration": 1.0, "checkpoint": 0.01}[moment]
        arguments = command(options, killed, resume=killed.exists())
        kill = kill_once(arguments, killed, moment, rng.uniform(0.0, longest))
        if kill is None:
            print(
                f"kill {number + 1}: the run ended first; lower --kills or raise train.iterations"
            )
            break
        kills.append(kill)
        inside = ", in the middle of a write" if kill.in_writing else ""
        print(
            f"kill {number + 1:2d} ({kill.moment}): after {kill.seconds:5.1f} s, newest checkpoint "
            f"{kill.checkpoint}{inside}; {kill.survivors} processes survived",
            flush=True,
        )
    seconds = finish(command(options, killed, resume=True))
    result = compare(whole, killed)
    for difference in result.differences[:20]:
        print(difference)
    survivors = sum(kill.survivors for kill in kills)
    print(
        f"{len(kills)} kills, {sum(kill.in_writing for kill in kills)} of them in the middle of a "
        f"checkpoint's writing; resumed to the end in {seconds:.1f} s\n"
        f"{result.values} values of {result.iterations} rows compared: "
        f"{len(result.differences)} differ; {survivors} processes survived a kill"
    )
    raise SystemExit(bool(result.differences or survivors or len(kills) < options.kills))


if __name__ == "__main__":
    main()

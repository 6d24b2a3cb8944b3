"""What a person sees of an evaluation: a bar while it runs, a line for each suite at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from agentrl.evals.results import Estimate, Results, SuiteResult
from agentrl.evals.samples import Sample
from agentrl.evals.statistics import mean_interval

_REFRESH_SECONDS = 0.5
_RATE_SECONDS = 30.0


class Tally:
    """The running score of a suite, with its interval, and what was lost, of one sitting."""

    def __init__(self, score: str) -> None:
        self.score = score
        self.done = 0
        self.lost = 0
        self._tasks: dict[str, list[float]] = {}
        self._began = self._mark = time.monotonic()
        self._marked = 0
        self._rate = 0.0

    def add(self, sample: Sample) -> None:
        """Count `sample`."""
        self.done += 1
        if sample.failure:
            self.lost += 1
        else:
            values = self._tasks.setdefault(sample.key.task_id, [])
            values.append(sample.scores.get(self.score, 0.0))

    def rate(self) -> float:
        """Samples per second of late."""
        now = time.monotonic()
        if now - self._mark >= _RATE_SECONDS or self._mark == self._began:
            self._rate = (self.done - self._marked) / max(now - self._mark, 1e-9)
        if now - self._mark >= _RATE_SECONDS:
            self._mark, self._marked = now, self.done
        return self._rate

    def words(self, total: int) -> str:
        """As in `correct 61.2 % [58.0, 64.3], 3 lost, 5.1/s, 4 min left`."""
        rate = self.rate()
        parts = []
        if self._tasks:
            means = [sum(values) / len(values) for values in self._tasks.values()]
            found = mean_interval(means)
            parts.append(f"{self.score} {shown(self.score, found.value, found.low, found.high)}")
        if self.lost:
            parts.append(f"{self.lost} lost")
        parts.append(f"{rate:.1f}/s")
        if rate > 0 and total > self.done:
            parts.append(f"{_duration((total - self.done) / rate)} left")
        return ", ".join(parts)


class Display:
    """Prints to `console`; quiet where it is no terminal except for whole lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """One line, never read as markup."""
        self.console.print(text, markup=False)

    @contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Show that `what` goes on."""
        if self.console.is_terminal:
            with self.console.status(what):
                yield
        else:
            self.line(f"{what} ...")
            yield

    @contextmanager
    def bar(self, what: str, tally: Tally, *, done: int, total: int) -> Iterator[Bar]:
        """A bar over `total` samples of which `done` were there before this sitting."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", markup=False),
        )
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            task = progress.add_task(what, total=total, completed=done, words="")
            yield Bar(progress, task, tally, total - done)

    def results(self, results: Results) -> None:
        """Each suite's score in a line, and what was lost."""
        for suite in results.suites:
            for text in _suite_lines(suite):
                self.line(text)


class Bar:
    """A bar that tells the running score; where nobody sees it, it costs nothing."""

    def __init__(self, progress: Progress, task: object, tally: Tally, total: int) -> None:
        self._progress = progress
        self._task = task
        self._tally = tally
        self._total = total
        self._shown = 0.0

    def add(self, sample: Sample) -> None:
        """Count `sample`, and show it twice a second."""
        self._tally.add(sample)
        if self._progress.disable:
            return
        now = time.monotonic()
        words = {}
        if now - self._shown >= _REFRESH_SECONDS:
            self._shown = now
            words = {"words": self._tally.words(self._total)}
        self._progress.update(self._task, advance=1, **words)  # type: ignore[arg-type]


def shown(name: str, value: float, low: float | None, high: float | None) -> str:
    """A score as a person reads it: a component in per cent, the reward (any range) as it is."""
    scale, unit, digits = (1.0, "", 3) if name == "reward" else (100.0, " %", 1)
    text = f"{scale * value:.{digits}f}{unit}"
    if low is None or high is None or low != low:
        return text
    return f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def _suite_lines(suite: SuiteResult) -> Iterator[str]:
    found = suite.estimates.get(suite.score)
    told = f"{suite.score}: nothing could be scored"
    if found is not None:
        told = f"{suite.score} {_shown_estimate(suite.score, found)}"
    times = f" x {suite.samples_per_task}" if suite.samples_per_task > 1 else ""
    yield f"{suite.suite}  {told}  ({suite.tasks} tasks{times})"
    if suite.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in suite.failures.items())
        worst = suite.if_failures_were_wrong
        bound = (
            "" if worst is None else f"; {shown(suite.score, worst, None, None)} if all were wrong"
        )
        yield f"  lost and not counted: {kinds}{bound}"
    if suite.missing:
        yield f"  not played yet: {suite.missing} of {suite.planned}"
    reasons = sorted(suite.stop_reasons.items(), key=lambda one: -one[1])
    if reasons:
        yield "  ended: " + ", ".join(f"{count} {reason}" for reason, count in reasons)
    tokens = suite.amounts.get("generated_tokens")
    if tokens is not None:
        cost = "" if suite.cost is None else f", cost {suite.cost:.4g}"
        yield f"  {tokens.total:.0f} generated tokens{cost}"


def _shown_estimate(name: str, estimate: Estimate) -> str:
    if estimate.value is None:
        return "unknown"
    return shown(name, estimate.value, estimate.low, estimate.high)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""The dashboard of a run on a terminal: where it stands, what it costs, and what goes wrong."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from agentrl.evals.shown_text import visible
from agentrl.evals.statistics import Interval
from agentrl.trainer.summary import SlowTask

_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE = 40
_KEPT = 512
_SLOW_SECONDS = 0.01
_FAILURES = "failures/"
_TIMES = {"rollout": "wait", "update": "update", "sync": "sync"}
"""Parts of an iteration's time -> their metrics: what is played beside an update takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a run may go: iterations, and generated tokens and tool calls (None: no limit)."""

    iterations: int
    generated_tokens: int | None = None
    tool_calls: int | None = None


class Dashboard:
    """What is known of a run, drawn in any width of 60 columns and more.

    Drawing never raises: what went wrong is kept in `failure`, and nothing is drawn from then on.
    """

    def __init__(
        self, name: str, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.limits = limits
        self.status = ""
        self.bar: Progress | None = None
        self.failure = ""
        self._lock = threading.Lock()  # It is drawn by a thread of its own.
        self._clock = clock
        self._began = clock()
        self._done = 0
        self._now: Mapping[str, float] = {}
        self._past: dict[str, list[float]] = defaultdict(list)
        self._failures: Counter[str] = Counter()
        self._slowest: Sequence[SlowTask] = ()
        self._evaluated: tuple[str, str] | None = None
        self._at = 0

    def iteration(self, number: int, metrics: Mapping[str, float]) -> None:
        """Take in one iteration; `metrics` are those of `metrics.jsonl`."""
        with self._lock:
            self._at = number
            self._done += 1
            self._now = metrics
            for name, value in metrics.items():
                past = self._past[name]
                past.append(value)
                del past[:-_KEPT]
                if name.startswith(_FAILURES) and math.isfinite(value):
                    self._failures[name.removeprefix(_FAILURES)] += round(value)

    def evaluation(self, name: str, result: Interval, text: str) -> None:
        """Take in one evaluation and how it reads."""
        with self._lock:
            self._evaluated = (name, text)
            self._past[f"eval/{name}"].append(result.value)

    def slowest(self, tasks: Sequence[SlowTask]) -> None:
        """Take in the tasks whose environments took longest in this iteration."""
        self._slowest = tasks

    def seconds_left(self) -> float | None:
        """Estimate by the pace so far, until the first of the run's limits; None: not known yet.

        Evaluations, checkpoints and a resumed run's start are in the pace as they were met.
        """
        if not self._done:
            return None
        left = float(self.limits.iterations - self._at)
        for limit, name in (
            (self.limits.generated_tokens, "generated_tokens"),
            (self.limits.tool_calls, "tool_calls"),
        ):
            past = [v for v in self._past.get(f"rollout/{name}", ()) if v > 0]
            spent = self._now.get(f"budget/{name}")
            if limit is not None and past and spent is not None:
                left = min(left, (limit - spent) / (sum(past) / len(past)))
        return max(0.0, left) * (self._clock() - self._began) / self._done

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw everything, or nothing once something went wrong."""
        if self.failure:
            return
        try:
            with self._lock:
                segments = list(console.render(self._drawn(options.max_width), options))
        except Exception as error:  # A run goes on, whatever is wrong with its picture.
            self.failure = f"{type(error).__name__}: {error}"
            return
        yield from segments

    def _drawn(self, width: int) -> RenderableType:
        parts: list[RenderableType] = [self._head()]
        if self._done or self._evaluated:
            parts += [self._quantities(width), self._notes()]
        bar = self.bar  # Taken once: the run may put it away meanwhile.
        if bar is not None:
            parts.append(bar.get_renderable())
        elif self.status:
            parts.append(_line(self.status))
        return Group(*parts)

    def _head(self) -> Text:
        left = self.seconds_left()
        elapsed = _clock_text(self._clock() - self._began)
        text = f"{self.name}  iteration {self._at}/{self.limits.iterations}  {elapsed}"
        return _line(text + ("" if left is None else f", {_clock_text(left)} left"), "bold")

    def _quantities(self, width: int) -> Table:
        """A row for each quantity: its name, its value now and its curve."""
        table = Table(box=None, show_header=False, pad_edge=False, expand=False)
        for style in ("dim", "", "cyan"):
            table.add_column(no_wrap=True, overflow="ellipsis", style=style)
        room = max(8, min(_CURVE, width - 54))
        for label, text, name in self._rows():
            table.add_row(label, _line(text), sparkline(self._past.get(name, ()), room))
        return table

    def _rows(self) -> list[tuple[str, str, str]]:
        m = self._now
        rows = []
        if self._evaluated is not None:
            name, text = self._evaluated
            rows.append((f"eval {name}", text, f"eval/{name}"))
        if not m:
            return rows
        return [
            *rows,
            ("reward", _number(m, "rollout/reward_mean", ".3f"), "rollout/reward_mean"),
            ("turns", _number(m, "rollout/turns_mean", ".2f"), "rollout/turns_mean"),
            (
                "tokens a trajectory",
                f"{_number(m, 'rollout/trajectory_tokens_p50', '.0f')} median, "
                f"{_number(m, 'rollout/trajectory_tokens_p95', '.0f')} p95",
                "rollout/trajectory_tokens_p50",
            ),
            ("entropy", _number(m, "policy/entropy_mean", ".3f"), "policy/entropy_mean"),
            ("policy lag", _number(m, "policy/lag_max", ".0f"), "policy/lag_max"),
            (
                "throughput",
                f"{_number(m, 'rollout/tokens_per_second', ',.0f')} tokens/s, "
                f"{_rate(m)} trajectories/s",
                "rollout/tokens_per_second",
            ),
            ("time", self._time_split(), "time/iteration_seconds"),
            (
                "env seconds",
                f"{_number(m, 'env/seconds_p50', '.3f')} median, "
                f"{_number(m, 'env/seconds_p95', '.3f')} p95, "
                f"{_number(m, 'env/seconds_max', '.3f')} most",
                "env/seconds_p95",
            ),
            ("spent", self._spent(), "budget/generated_tokens"),
        ]

    def _time_split(self) -> str:
        total = self._now.get("time/iteration_seconds", math.nan)
        if not total > 0:
            return "–"
        shares = {n: self._now.get(f"time/{of}_seconds", 0.0) / total for n, of in _TIMES.items()}
        return f"{total:.1f} s: " + ", ".join(f"{n} {100 * s:.0f} %" for n, s in shares.items())

    def _spent(self) -> str:
        def of(name: str, limit: int | None) -> str:
            text = _number(self._now, f"budget/{name}", ",.0f")
            return text if limit is None else f"{text} of {limit:,}"

        return (
            f"{of('generated_tokens', self.limits.generated_tokens)} tokens, "
            f"{of('tool_calls', self.limits.tool_calls)} calls"
        )

    def _notes(self) -> Group:
        """Failures by type so far, and the slowest environments of the iteration."""
        failed = {name: count for name, count in self._failures.items() if count}
        told = ", ".join(f"{count} {name}" for name, count in sorted(failed.items()))
        lines = [_line(f"failures so far: {told or 'none'}", "red" if told else "dim")]
        for one in self._slowest:
            if one.seconds < _SLOW_SECONDS:
                continue
            tool = f", {visible(one.tool)}" if one.tool else ""
            lines.append(_line(f"slow: {one.seconds:.2f} s in {visible(one.task_id)}{tool}", "dim"))
        return Group(*lines)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` of `values` as blocks from their lowest to their highest; unknown: a gap."""
    last = list(values[-width:]) if width > 0 else []
    known = [value for value in last if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        # Halves: the distance of two finite numbers may overflow, that of their halves cannot.
        span = high / 2 - low / 2
        share = (value / 2 - low / 2) / span if span > 0 else 0.5
        return _BLOCKS[min(len(_BLOCKS) - 1, int(share * len(_BLOCKS)))]

    return "".join(block(value) for value in last)


def _line(text: str, style: str = "") -> Text:
    """One line that is cut at the terminal's edge; never read as markup."""
    return Text(" ".join(text.split("\n")), style=style, no_wrap=True, overflow="ellipsis")


def _number(metrics: Mapping[str, float], name: str, form: str) -> str:
    value = metrics.get(name, math.nan)
    return format(value, form) if math.isfinite(value) else "–"


def _rate(metrics: Mapping[str, float]) -> str:
    seconds = metrics.get("time/rollout_seconds", 0.0)
    count = metrics.get("rollout/trajectories", math.nan)
    return f"{count / seconds:.1f}" if seconds > 0 and math.isfinite(count) else "–"


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

"""What a person sees while a run goes on: phases, one line per iteration, the curve at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentrl.evals.statistics import Interval
from agentrl.trainer.dashboard import Dashboard, Limits
from agentrl.trainer.summary import SlowTask

_REFRESHES_PER_SECOND = 1


class Display:
    """Prints to `console`; quiet where it is not a terminal except for whole lines.

    Inside `live` a dashboard takes the place of bars and of the line of each iteration, on a
    terminal that can move its cursor and unless `plain`. One that fails is put away with a note,
    and the lines go on.
    """

    def __init__(self, console: Console | None = None, *, plain: bool = False) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._plain = plain or not self.console.is_terminal or self.console.is_dumb_terminal
        self._dashboard: Dashboard | None = None
        self._live: Live | None = None

    @contextmanager
    def live(self, name: str, limits: Limits) -> Iterator[None]:
        """Show the run `name` as a dashboard meanwhile, where there can be one."""
        if not self._plain:
            self._dashboard = Dashboard(name, limits)
            self._guarded(self._start)
        try:
            yield
        finally:
            if self._live is not None:
                self._guarded(self._live.stop)
            self._live = self._dashboard = None

    def _start(self) -> None:
        self._live = Live(
            self._dashboard, console=self.console, refresh_per_second=_REFRESHES_PER_SECOND
        )
        self._live.start(refresh=True)

    def _guarded(self, draw: Callable[[], object]) -> None:
        """Do something for the dashboard; if that or its drawing fails, go on without it."""
        failed = ""
        try:
            draw()
        except Exception as error:  # A run goes on, whatever is wrong with its picture.
            failed = f"{type(error).__name__}: {error}"
        failed = failed or ("" if self._dashboard is None else self._dashboard.failure)
        if not failed:
            return
        live, self._live, self._dashboard, self._plain = self._live, None, None, True
        if live is not None:
            with suppress(Exception):  # It failed already; this only gives the cursor back.
                live.stop()
        self.text(f"the dashboard failed and is put away ({failed}); lines go on")

    @contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Show that `what` goes on; anything longer than two seconds is inside one."""
        shown_in = self._dashboard
        if shown_in is not None:
            shown_in.status = what
            try:
                yield
            finally:
                shown_in.status = ""
        elif self.console.is_terminal:
            with self.console.status(what):
                yield
        else:
            self.console.print(f"{what} ...")
            yield

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Progress]:
        """A progress bar of `total` steps, to be advanced by its user."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        progress = Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        progress.add_task(what, total=total)
        shown_in = self._dashboard
        if shown_in is None:
            with progress:
                yield progress
            return
        shown_in.bar = progress
        try:
            yield progress
        finally:
            shown_in.bar = None

    def line(self, text: str) -> None:
        """One line."""
        self.console.print(text)

    def text(self, text: str) -> None:
        """Text that is not ours: shown as it is, never read as markup."""
        self.console.print(text, markup=False)

    def iteration(self, number: int, total: int, metrics: Mapping[str, float]) -> None:
        """One training iteration: in the dashboard, or in one line."""
        dashboard = self._dashboard
        if dashboard is not None:
            self._guarded(lambda: dashboard.iteration(number, metrics))
            if self._dashboard is not None:
                return
        m = metrics
        self.console.print(
            f"[bold]{number:4d}/{total}[/]  reward {m['rollout/reward_mean']:6.3f}"
            f"  turns {m['rollout/turns_mean']:4.2f}"
            f"  branches {m['rollout/branches']:4.0f}"
            f"  calls {m['rollout/tool_calls']:5.0f}"
            f"  entropy {m['policy/entropy_mean']:5.3f}"
            f"  clipped {_clipped(m):6.4f}"
            f"  tok/s {m['rollout/tokens_per_second']:6.0f}"
            f"  {m['time/iteration_seconds']:5.1f} s"
        )

    def evaluation(self, name: str, result: Interval, on: str) -> None:
        """One evaluation in one line; `on` says which tasks."""
        self.console.print(f"[bold cyan]eval[/]  {name} {shown(name, result)} on {on}")
        dashboard = self._dashboard
        if dashboard is not None:
            self._guarded(lambda: dashboard.evaluation(name, result, shown(name, result)))

    def slowest(self, tasks: Sequence[SlowTask]) -> None:
        """The tasks whose environments took longest, for the dashboard."""
        if self._dashboard is not None:
            self._dashboard.slowest(tasks)

    def curve(self, title: str, points: Sequence[tuple[int, float]]) -> None:
        """The learning curve as a small plot."""
        self.console.print(plot(title, points), markup=False)


def shown(name: str, interval: Interval) -> str:
    """`interval` as a person reads it: a component in per cent, the reward (any range) as it is."""
    scale, digits, unit = (1, 3, "") if name == "reward" else (100, 1, " %")
    value, low, high = (f"{scale * one:.{digits}f}" for one in interval[:3])
    bounds = f"[{low}, {high}]" if interval.method != "none" else "(no interval)"
    return f"{value}{unit} {bounds}"


def _clipped(metrics: Mapping[str, float]) -> float:
    return sum(metrics.get(f"train/clip_fraction_{side}", 0.0) for side in ("low", "high"))


def plot(
    title: str, points: Sequence[tuple[int, float]], *, width: int = 60, height: int = 12
) -> str:
    """`points` (x, y) as text: columns by x, the y axis labelled on the left."""
    if not points:
        return f"{title}: no points"
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    if low == high:
        return f"{title}: {low:.3f} throughout"
    span_y, span_x = high - low, (max(xs) - min(xs)) or 1
    grid = [[" "] * width for _ in range(height)]
    for x, y in points:
        column = round((x - min(xs)) / span_x * (width - 1))
        row = round((high - y) / span_y * (height - 1))
        grid[row][column] = "●"
    labels = [f"{high - span_y * row / (height - 1):8.3f} ┤" for row in range(height)]
    body = "\n".join(label + "".join(line) for label, line in zip(labels, grid, strict=True))
    axis = " " * 9 + "└" + "─" * width
    ticks = " " * 10 + f"{min(xs):<{width // 2}d}{max(xs):>{width - width // 2}d}"
    return f"{title}\n{body}\n{axis}\n{ticks}"

"""Where the marks of a report's plots lie, in units of the SVG picture; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentrl.evals.report_numbers import is_share, value_text
from agentrl.evals.results import Estimate

_LEFT, _AXIS, _RIGHT, _ROW = 200, 400, 130, 26
_CURVE_WIDTH, _CURVE_HEIGHT, _MARGIN, _FOOT = 360, 190, 52, 30
_LABEL = 26
_TICKS = (1, 2, 2.5, 5, 10)


class Tick(NamedTuple):
    """A labelled place on an axis."""

    at: float
    label: str


class Mark(NamedTuple):
    """One value on the common axis; `hue` numbers its evaluation, None: a published value."""

    label: str
    text: str
    hue: int | None
    y: float
    x: float
    low: float | None
    high: float | None


class IntervalPlot(NamedTuple):
    """Values with their intervals on one horizontal axis, a line for each."""

    width: float
    height: float
    left: float
    right: float
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]


class Point(NamedTuple):
    """A point of a curve with its interval (equal to `y` where there is none)."""

    x: float
    y: float
    low: float
    high: float
    text: str


class Curve(NamedTuple):
    """One evaluation's curve; `path` is its line."""

    letter: str
    hue: int
    points: tuple[Point, ...]
    path: str


class CurvePlot(NamedTuple):
    """Curves over a few whole numbers, which stand at equal distances."""

    title: str
    x_title: str
    width: float
    height: float
    left: float
    bottom: float
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


class Segment(NamedTuple):
    """A part of a bar: `kind` says what is counted (scored, failed, missing)."""

    kind: str
    samples: int
    x: float
    width: float


def interval_plot(
    name: str, rows: Sequence[tuple[str, int | None, Estimate]]
) -> IntervalPlot | None:
    """A plot of (label, hue, estimate) rows, or None where no row has a value."""
    drawn = [(label, hue, one) for label, hue, one in rows if one.value is not None]
    if not drawn:
        return None
    estimates = [one for _, _, one in drawn]
    share = is_share(name, *estimates)
    low, high, step = _range(estimates, share=share)

    def at(value: float) -> float:
        inside = min(max(value, low), high)
        return round(_LEFT + (inside - low) / (high - low) * _AXIS, 2)

    marks = []
    for number, (label, hue, one) in enumerate(drawn):
        assert one.value is not None  # Kept above.
        bounds = None if one.low is None or one.high is None else (at(one.low), at(one.high))
        marks.append(
            Mark(
                label if len(label) <= _LABEL else label[: _LABEL - 1] + "…",
                value_text(one.value, share=share),
                hue,
                _ROW * (number + 0.5),
                at(one.value),
                None if bounds is None else bounds[0],
                None if bounds is None else bounds[1],
            )
        )
    count = round((high - low) / step)
    ticks = tuple(
        Tick(at(low + step * n), _tick_text(low + step * n, share=share)) for n in range(count + 1)
    )
    height = _ROW * len(marks) + 26
    return IntervalPlot(_LEFT + _AXIS + _RIGHT, height, _LEFT, _LEFT + _AXIS, tuple(marks), ticks)


def curve_plot(
    title: str, x_title: str, lines: Sequence[tuple[str, int, Mapping[int, Estimate]]]
) -> CurvePlot | None:
    """Curves of (letter, hue, number -> estimate); None where no line has two values."""
    known = [
        (letter, hue, {k: e for k, e in sorted(line.items()) if e.value is not None})
        for letter, hue, line in lines
    ]
    if not any(len(line) > 1 for _, _, line in known):
        return None
    numbers = sorted({k for _, _, line in known for k in line})
    estimates = [e for _, _, line in known for e in line.values()]
    share = is_share(title, *estimates)
    low, high, step = _range(estimates, share=share)
    bottom, width = _CURVE_HEIGHT - _FOOT, _CURVE_WIDTH - _MARGIN - 16

    def across(k: int) -> float:
        return round(_MARGIN + 8 + numbers.index(k) / max(1, len(numbers) - 1) * (width - 8), 2)

    def up(value: float) -> float:
        inside = min(max(value, low), high)
        return round(bottom - (inside - low) / (high - low) * (bottom - 12), 2)

    def point(k: int, one: Estimate) -> Point:
        assert one.value is not None  # Kept above.
        lower = one.value if one.low is None else one.low
        upper = one.value if one.high is None else one.high
        text = f"{k}: {value_text(one.value, share=share)}"
        return Point(across(k), up(one.value), up(lower), up(upper), text)

    curves = []
    for letter, hue, line in known:
        points = tuple(point(k, one) for k, one in line.items())
        path = " ".join(f"{'L' if n else 'M'}{p.x} {p.y}" for n, p in enumerate(points))
        curves.append(Curve(letter, hue, points, path))
    count = round((high - low) / step)
    shown = [k for n, k in enumerate(numbers) if n % math.ceil(len(numbers) / 10) == 0]
    return CurvePlot(
        title,
        x_title,
        _CURVE_WIDTH,
        _CURVE_HEIGHT,
        _MARGIN,
        bottom,
        tuple(curves),
        tuple(Tick(across(k), str(k)) for k in shown),
        tuple(
            Tick(up(low + step * n), _tick_text(low + step * n, share=share))
            for n in range(count + 1)
        ),
    )


def bar(counts: Mapping[str, int], *, width: float = 160.0) -> tuple[Segment, ...]:
    """A bar of `width` with a part for each of `counts`; what is there is at least a pixel wide."""
    present = {kind: count for kind, count in counts.items() if count > 0}
    total = sum(present.values())
    spare = width - len(present)
    segments, x = [], 0.0
    for kind, count in present.items():
        size = 1 + spare * count / total
        segments.append(Segment(kind, count, round(x, 2), round(size, 2)))
        x += size
    return tuple(segments)


def _range(estimates: Sequence[Estimate], *, share: bool) -> tuple[float, float, float]:
    """Lowest and highest value of an axis and the distance of its ticks; shares: 0 to 1."""
    if share:
        return 0.0, 1.0, 0.2
    found = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    low, high = min(0.0, *found), max(0.0, *found)
    rough = ((high - low) or 1.0) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(n * unit for n in _TICKS if n * unit >= rough * (1 - 1e-9))
    return math.floor(low / step) * step, max(1, math.ceil(high / step)) * step, step


def _tick_text(value: float, *, share: bool) -> str:
    return f"{100 * value:.0f} %" if share else f"{round(value, 10):g}"

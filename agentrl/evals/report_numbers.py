"""Numbers of a report as people read them."""

from __future__ import annotations

import math

from agentrl.evals.results import Estimate

ABSENT = "–"
_SLACK = 0.2


def is_share(name: str, *estimates: Estimate) -> bool:
    """Whether `name` is shown in per cent: every value lies in [0, 1] and it is no plain reward."""
    values = [one.value for one in estimates if one.value is not None]
    bounds = [b for one in estimates for b in (one.low, one.high) if b is not None]
    return (
        name != "reward"
        and all(0.0 <= value <= 1.0 for value in values)
        and all(-_SLACK <= bound <= 1.0 + _SLACK for bound in bounds)
    )


def value_text(value: float | None, *, share: bool) -> str:
    """One value: `74.3 %`, or `1.250` where it is no share."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"


def interval_text(estimate: Estimate, *, share: bool) -> str:
    """The 95 % interval in brackets, in the unit of the value; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    factor, digits = (100.0, 1) if share else (1.0, 3)
    return f"[{factor * estimate.low:.{digits}f}, {factor * estimate.high:.{digits}f}]"


def estimate_text(name: str, estimate: Estimate | None, *beside: Estimate) -> str:
    """Value and interval: `74.3 % [70.1, 78.2]`; in one unit with those that stand `beside` it."""
    if estimate is None or estimate.value is None:
        return ABSENT
    share = is_share(name, estimate, *beside)
    parts = (value_text(estimate.value, share=share), interval_text(estimate, share=share))
    return " ".join(part for part in parts if part)


def quantity(value: float | None) -> str:
    """A count or a duration with three or more digits that matter: `12`, `3.46`, `1,204,551`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as `48 s`, `12 min 5 s` or `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"

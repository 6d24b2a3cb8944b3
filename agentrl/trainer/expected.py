"""Where a finished run stands against the band that its recipe is known to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from agentrl.evals.statistics import Interval
from agentrl.recipe.schema import BandSettings

Place: TypeAlias = Literal["inside", "below", "above", "not reached"]


class Measured(NamedTuple):
    """An evaluation of a run: its iteration and the score."""

    iteration: int
    interval: Interval


class Standing(NamedTuple):
    """Where a run stands: by the first evaluation after the band's number of tokens.

    `place` is the value's; `overlaps` says whether its 95 % interval reaches into the band, so
    that a value outside may be chance. A run without such an evaluation has not reached it.
    """

    place: Place
    at: Measured | None
    tokens: int
    overlaps: bool


def standing(
    band: BandSettings, evaluations: Sequence[Measured], tokens: Mapping[int, float]
) -> Standing:
    """Where `evaluations` put a run; `tokens` are generated until the end of each iteration."""
    for one in evaluations:
        spent = tokens.get(one.iteration, 0.0)
        if spent < band.generated_tokens:
            continue
        value, low, high = one.interval[:3]
        place: Place = "inside"
        if value < band.low:
            place = "below"
        elif value > band.high:
            place = "above"
        # A bound that is not known (NaN) reaches nowhere.
        overlaps = place == "inside" or (low <= band.high and high >= band.low)
        return Standing(place, one, round(spent), overlaps)
    spent = max(tokens.values(), default=0.0)
    return Standing("not reached", None, round(spent), False)


def standing_text(found: Standing, band: BandSettings, score: str) -> str:
    """One line for a person."""
    named = f"the expected band {_value(band.low, score)} to {_value(band.high, score)}"
    after = f"{band.generated_tokens:,} generated tokens"
    if found.at is None:
        return (
            f"{named} of {score} does not apply: it is for {after}, and no evaluation came after "
            f"so many (the run generated {found.tokens:,})"
        )
    text = (
        f"{score} {_value(found.at.interval.value, score)} at iteration {found.at.iteration} "
        f"({found.tokens:,} generated tokens) is {found.place} {named} after {after}"
    )
    if found.place == "inside":
        return text
    return text + (
        "; its interval overlaps the band, so this may be chance"
        if found.overlaps
        else "; its interval does not overlap the band"
    )


def standing_json(found: Standing, band: BandSettings) -> dict[str, object]:
    """As `result.json` has it."""
    return {
        "band": [band.low, band.high],
        "after_generated_tokens": band.generated_tokens,
        "place": found.place,
        "overlaps": found.overlaps,
        "iteration": None if found.at is None else found.at.iteration,
        "score": None if found.at is None else found.at.interval.value,
        "generated_tokens": found.tokens,
    }


def _value(value: float, score: str) -> str:
    return f"{value:.3f}" if score == "reward" else f"{100 * value:.1f} %"

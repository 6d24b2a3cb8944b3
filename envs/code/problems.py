"""The records of program synthesis: problems and their tests, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

CaseKind: TypeAlias = Literal["call", "expression", "program", "stdin"]
Style: TypeAlias = Literal["function", "stdin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test, of one of four kinds.

    `"call"`: the problem's function, given `args` (encoded), returns `expected` (encoded).
    `"expression"`: `source`, evaluated where the program is, is `expected` (encoded).
    `"program"`: `source` raises nothing, its functions `names` being the program's.
    `"stdin"`: the program, given `source` on standard input, writes the text `expected`.
    `shown` is the test as a person would write it.
    """

    kind: CaseKind
    source: str = ""
    args: Sequence[object] = ()
    expected: Any = None
    names: Sequence[str] = ()
    shown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem, its tests, and a solution where one is known.

    `entry` is the wanted function, empty where the program reads standard input (`style` tells).
    `prefix` is code that an answer may continue (HumanEval's prompt) and whose helpers tests may
    use. `prelude` runs before the program, `setup` after it. With `loose` tuples count as lists
    and floats need agree to 1e-6 only. `seconds` is the limit on CPU time of one run, None for
    the environment's. `private` are hidden tests in LiveCodeBench's encoding, read when graded.
    """

    id: str
    text: str
    style: Style = "function"
    entry: str = ""
    prefix: str = ""
    starter: str = ""
    prelude: str = ""
    setup: str = ""
    visible: Sequence[Case] = ()
    hidden: Sequence[Case] = ()
    private: str = ""
    loose: bool = False
    seconds: float | None = None
    solution: str = ""

    def data(self) -> dict[str, Any]:
        """As plain data, the inverse of `problem_of`."""
        return _listed(asdict(self))  # type: ignore[no-any-return]


def problem_of(data: Mapping[str, Any]) -> Problem:
    """The problem of a task's data."""
    cases = {key: [Case(**one) for one in data[key]] for key in ("visible", "hidden")}
    return Problem(**{**data, **cases})


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_listed(one) for one in value]
    return value

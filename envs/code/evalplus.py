"""EvalPlus's releases of HumanEval+ (arXiv:2305.01210): inputs, and a reference that answers them.

A row has HumanEval's `prompt`, `entry_point` and `canonical_solution`, with `base_input` and
`plus_input` (lists of argument lists) and `atol`. What is expected is what the reference gives. Its
`contract` says which inputs are allowed; all that a release holds are. The hub's rows hold a test
that is whole (`test`) and need none of this.
"""

from __future__ import annotations

from agentrl.core.datasets import Row, shown
from agentrl.core.errors import DataError

from .problems import Case, Problem

_TEST = """\
from copy import deepcopy as _copy


def _close(got, wanted, atol):
    return abs(got - wanted) <= atol + 1e-7 * abs(wanted)


def _same(got, wanted):
    if got == wanted:
        return True
    many = isinstance(wanted, (list, tuple)) and all(isinstance(one, float) for one in wanted)
    atol = {atol!r} or (1e-6 if many or isinstance(wanted, float) else 0.0)
    if not atol:
        return False
    if isinstance(wanted, (list, tuple)):
        pairs = zip(got, wanted)
        return len(got) == len(wanted) and all(_close(*pair, atol) for pair in pairs)
    return _close(got, wanted, atol)


_known = {{}}
exec({reference!r}, _known)
_inputs = {inputs!r}
for _given in _inputs:
    _wanted = _known[{entry!r}](*_copy(_given))
    assert _same({entry}(*_copy(_given)), _wanted), f"wrong for {{_given!r:.200}}"
"""

_ROOT_TEST = """\
_known = {{}}
exec({reference!r}, _known)
_inputs = {inputs!r}
for _given in _inputs:
    _at = {entry}(*[list(one) for one in _given])
    assert abs(_known["poly"](*_given, _at)) <= {atol!r}, f"no root of {{_given!r:.200}}"
"""
"""A polynomial may have several roots, each of which is right."""


def evalplus_problem(row: Row) -> Problem:
    """A row of a release of HumanEval+.

    Raises:
        DataError: it has not what it needs, or is of MBPP+'s releases, whose inputs are JSON and do
            not say which lists are tuples.
    """
    id_ = row.id("task_id")
    if id_.lower().startswith("mbpp"):
        raise DataError(
            f"{row.place}: EvalPlus's releases of MBPP+ keep tuples as lists; take the rows of "
            "hub:evalplus/mbppplus@test, whose tests are Python"
        )
    entry, prompt = row.text("entry_point"), row.text("prompt")
    solution = prompt + row.text("canonical_solution")
    template = _ROOT_TEST if entry == "find_zero" else _TEST
    source = template.format(
        entry=entry,
        reference=solution,
        inputs=[*_inputs(row, "base_input"), *_inputs(row, "plus_input")],
        atol=_tolerance(row),
    )
    return Problem(
        id=id_,
        text=prompt,
        entry=entry,
        prefix=prompt,
        hidden=[Case(kind="program", source=source, names=[entry], shown=f"check({entry})")],
        solution=solution,
    )


def _inputs(row: Row, key: str) -> list[list[object]]:
    found = row.value(key)
    if not isinstance(found, list) or not all(isinstance(one, list) for one in found):
        raise DataError(
            f"{row.place}: {key!r} must be a list of argument lists, got {shown(found)}"
        )
    return found


def _tolerance(row: Row) -> float:
    found = row.data.get("atol") or 0.0
    if type(found) not in (int, float) or found < 0:  # type: ignore[operator]
        raise DataError(f"{row.place}: 'atol' must be a number, not negative, got {shown(found)}")
    return float(found)  # type: ignore[arg-type]

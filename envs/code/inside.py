"""What runs inside the sandbox: plain values in JSON, the calls of a program, tests of its values.

The grader sends this file's source there, so it imports the standard library alone. A program of
the policy shares its interpreter only with `answer_calls`, which knows no expected value; tests
run in `run_test`, in another interpreter that sees nothing of the program but plain values.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import math
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

PROGRAM = "solution.py"
"""The file name that a program has in its tracebacks."""

_PLAIN_BITS = 1024
_ITERATED = 100_000
_TOLD_CHARS = 1500


class Opaque:
    """Stands for a value that is no plain data; equal to nothing but itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name} object>"


def encode(value: object) -> Any:
    """`value` as JSON; a subclass of a plain type as the plain type, other objects by type name.

    Numbers of other types (Decimal, Fraction) are no plain data: the grader would have to compute
    with them to compare them, and a program chooses them.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Opaque):
        return _marked("opaque", value.name)
    for kind, encoder in _ENCODERS:
        if isinstance(value, kind):
            return encoder(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist())
    if isinstance(value, (type({}.keys()), type({}.items()))):
        return _marked("set", _ordered(value))
    if isinstance(value, Iterator):
        return _marked("iterator", [encode(one) for one in islice(value, _ITERATED)])
    return _marked("object", type(value).__name__)


def decode(wire: Any, *, hashed: int = 1_000_000) -> Any:
    """The value of `wire`, whose sets and mappings have at most `hashed` items each.

    Raises:
        ValueError: it is no encoded value.
    """
    try:
        return _decoded(wire, hashed)
    except (TypeError, KeyError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"not an encoded value: {error}") from error


def _decoded(wire: Any, hashed: int) -> Any:
    if isinstance(wire, list):
        return [_decoded(one, hashed) for one in wire]
    if not isinstance(wire, dict):
        return wire
    kind, value = wire["$"], wire["v"]
    if kind in ("tuple", "set", "frozenset", "iterator", "dict"):
        if kind not in ("tuple", "iterator") and len(value) > hashed:
            raise ValueError(f"a {kind} of more than {hashed} items")
        items = [_decoded(one, hashed) for one in value]
        makers: dict[str, Callable[[Any], object]] = {
            "tuple": tuple,
            "set": set,
            "frozenset": frozenset,
            "iterator": iter,
            "dict": dict,
        }
        return makers[kind](items)
    scalars: dict[str, Callable[[str], object]] = {
        "int": lambda text: int(text, 16),
        "float": float,
        "complex": complex,
        "bytes": bytes.fromhex,
        "object": Opaque,
    }
    return scalars[kind](value)


def _marked(kind: str, value: object) -> dict[str, object]:
    return {"$": kind, "v": value}


def _ordered(items: Iterable[object]) -> list[Any]:
    return sorted(map(encode, items), key=json.dumps)


def _integer(value: int) -> object:
    plain = int.__index__(value)
    return plain if plain.bit_length() <= _PLAIN_BITS else _marked("int", hex(plain))


def _float(value: float) -> object:
    plain = float.__float__(value)
    return plain if math.isfinite(plain) else _marked("float", repr(plain))


_ENCODERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (int, _integer),
    (float, _float),
    (str, lambda one: str.__str__(one)),
    (list, lambda one: [encode(item) for item in list.__iter__(one)]),
    (tuple, lambda one: _marked("tuple", [encode(item) for item in tuple.__iter__(one)])),
    (dict, lambda one: _marked("dict", [encode(item) for item in dict.items(one)])),
    (set, lambda one: _marked("set", _ordered(one))),
    (frozenset, lambda one: _marked("frozenset", _ordered(one))),
    (complex, lambda one: _marked("complex", str(one))),
    ((bytes, bytearray), lambda one: _marked("bytes", one.hex())),
)


def answer_calls(request: dict[str, Any], say: Callable[[object], None]) -> None:
    """Run the program of `request`, then its calls, saying each answer as it comes.

    A call is `[name, args, kwargs]`, encoded, or the source of an expression. An answer is
    `{"value": encoded}` or `{"raised": type name, "told": traceback}`.
    """
    code = str(request["code"])
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    linecache.cache[PROGRAM] = (len(code), None, code.splitlines(keepends=True), PROGRAM)
    try:
        exec(str(request["prelude"]), vars(module))
        exec(compile(code, PROGRAM, "exec"), vars(module))
        exec(str(request["setup"]), vars(module))
    except BaseException as error:
        # Whatever a program raises, SystemExit included, is its answer.
        say(["failed", _raised(error)])
        return
    for number, call in enumerate(request["calls"]):
        try:
            answer: object = {"value": encode(_called(call, vars(module)))}
        except BaseException as error:
            answer = _raised(error)
        say([number, answer])


def _called(call: Any, names: dict[str, Any]) -> object:
    if isinstance(call, str):
        return eval(call, names)
    name, args, kwargs = call
    solution = names.get("Solution")
    target = getattr(solution(), name, None) if isinstance(solution, type) else None
    if target is None:
        if name not in names:
            raise NameError(f"name {name!r} is not defined")
        target = names[name]
    return target(*decode(args), **decode(kwargs))


def _raised(error: BaseException) -> dict[str, str]:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != PROGRAM:
        trace = trace.tb_next
    told = "".join(traceback.format_exception(type(error), error, trace))
    return {"raised": type(error).__name__, "told": told[-_TOLD_CHARS:].strip()}


class _Unanswered(BaseException):
    """A test asked for a call that has no answer yet."""


class _NotPlain(BaseException):
    """A test passes an argument that is no plain data."""


class Anything:
    """What every call returns while the calls of a test are only collected."""

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __len__(self) -> int:
        return 0  # and so it is false, which ends a loop on it

    def __float__(self) -> float:
        return 0.0

    def __index__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def _itself(self: Anything, *_: object, **__: object) -> Anything:
    return self


_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
_OTHERS = ("eq", "ne", "lt", "le", "gt", "ge", "abs", "neg", "round", "getitem", "call")
for _name in (*_ARITHMETIC, *(f"r{_one}" for _one in _ARITHMETIC), *_OTHERS):
    setattr(Anything, f"__{_name}__", _itself)


class _Calls:
    """Answers the calls of a test from a table, and notes those that are not in it."""

    def __init__(self, answers: dict[str, Any], collect: bool) -> None:
        self.answers, self.collect = answers, collect
        self.missing: list[object] = []

    def function(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            asked = [name, encode(list(args)), encode(kwargs)]
            key = json.dumps(asked)
            if '"$": "opaque"' in key:
                raise TypeError(f"{name} is called with a value of the program's own")
            if '"$": "object"' in key:
                if self.collect:
                    return Anything()
                raise _NotPlain(f"{name} is called with an argument that is no plain data")
            if key not in self.answers:
                self.missing.append(asked)
                if self.collect:
                    return Anything()
                raise _Unanswered
            answer = self.answers[key]
            if "value" in answer:
                return decode(answer["value"])
            kind = getattr(builtins, str(answer["raised"]), None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(str(answer["raised"]))
            raise RuntimeError(str(answer["raised"]))

        return call


class _Unasserted(ast.NodeTransformer):
    """Replaces `assert x` and `x` by evaluating x, whatever it raises."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return self._tried(node, ast.Expr(node.test))

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        # A docstring may stand before an import from the future, which nothing else may.
        return node if isinstance(node.value, ast.Constant) else self._tried(node, node)

    def _tried(self, node: ast.stmt, statement: ast.Expr) -> ast.AST:
        body = [statement]
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])
        tried = ast.Try(body=list[ast.stmt](body), handlers=[handler], orelse=[], finalbody=[])
        return ast.copy_location(tried, node)


def run_test(request: dict[str, Any], say: Callable[[object], None]) -> None:
    """Run a test in which the functions `names` are answered from a table; says how it went.

    With `collect` nothing is judged: it says the calls that the test makes.
    """
    answers = dict(request["answers"])
    calls = _Calls(answers, bool(request["collect"]))
    space: dict[str, object] = {"__name__": "tests"}
    tree = ast.parse(str(request["source"]))
    if calls.collect:
        tree = ast.fix_missing_locations(_Unasserted().visit(tree))
    passed, told, refused = False, "", ""
    import random  # here, since a program that answers calls is spared the time for it

    random.seed(0)
    try:
        exec(str(request["prelude"]), space)
        space.update({name: calls.function(name) for name in request["names"]})
        exec(compile(tree, "tests.py", "exec"), space)
        passed = not calls.collect
    except _NotPlain as error:
        refused = str(error)
    except _Unanswered:
        told = "a call without an answer"
    except BaseException as error:
        told = "".join(traceback.format_exception_only(error)).strip()[:_TOLD_CHARS]
    say({"passed": passed, "told": told, "refused": refused, "missing": calls.missing})


def main() -> None:
    """Serve the request on standard input; what is said goes to standard output, marked."""
    request = json.loads(sys.stdin.read())
    mark = request.pop("mark")
    out = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    # What the program prints or reads is none of the conversation.
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)

    def say(what: object) -> None:
        data = f"\n{mark}{json.dumps(what)}\n".encode()
        while data:
            data = data[os.write(out, data) :]

    (answer_calls if request.pop("do") == "calls" else run_test)(request, say)
    # Not sys.exit: threads and exit hooks of the program would go on.
    os._exit(0)

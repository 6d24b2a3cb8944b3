"""LiveCodeBench's tests: JSON, or pickled JSON that is zipped and written in base64."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from typing import NoReturn

from agentrl.core.errors import DataError

from .inside import encode
from .problems import Case

_MOST_BYTES = 256 * 1024 * 1024


class _TextUnpickler(pickle.Unpickler):
    """Reads plain values; a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object from elsewhere")


def read_tests(text: str, *, place: str, entry: str) -> list[Case]:
    """The tests of `public_test_cases` or `private_test_cases`; `place` is for errors.

    Raises:
        DataError: text that is neither JSON nor the encoded form, or a test of an unknown kind.
    """
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else json.loads(_unpacked(text))
    except _BROKEN as error:
        raise DataError(f"{place}: no tests of LiveCodeBench: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{place}: tests of LiveCodeBench are a JSON array of objects")
    return [_case(row, f"{place}: test {number}", entry) for number, row in enumerate(rows)]


_BROKEN = (
    ValueError,
    TypeError,
    binascii.Error,
    zlib.error,
    EOFError,
    pickle.UnpicklingError,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    MemoryError,
)
"""What damaged or hostile text makes the decoders raise."""


def _unpacked(text: str) -> str:
    unzip = zlib.decompressobj()
    data = unzip.decompress(base64.b64decode(text.encode(), validate=True), _MOST_BYTES)
    if unzip.unconsumed_tail:
        raise ValueError(f"more than {_MOST_BYTES} bytes")
    if not unzip.eof:
        raise ValueError("the zipped text is cut short")
    found = _TextUnpickler(io.BytesIO(data)).load()
    if not isinstance(found, str):
        raise ValueError(f"the pickle holds {type(found).__name__}, not text")
    return found


def _case(row: dict[str, object], place: str, entry: str) -> Case:
    given, wanted = row.get("input"), row.get("output")
    if not isinstance(given, str) or not isinstance(wanted, str):
        raise DataError(f"{place}: 'input' and 'output' must be texts")
    kind = row.get("testtype", "stdin")
    if kind == "stdin":
        return Case(kind="stdin", source=given, expected=wanted)
    if kind != "functional":
        raise DataError(f"{place}: 'testtype' must be stdin or functional, got {kind!r}")
    if not entry:
        raise DataError(f"{place}: a functional test needs 'func_name' in the row's metadata")
    try:
        # One JSON value a line; a value of its own may stand over several lines.
        args = _values(given)
        expected = json.loads(wanted)
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    shown = f"{entry}({', '.join(map(repr, args))}) == {expected!r}"
    wire = [encode(one) for one in args]
    return Case(kind="call", args=wire, expected=encode(expected), shown=shown)


def _values(text: str) -> list[object]:
    decoder, at, found = json.JSONDecoder(), 0, []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found

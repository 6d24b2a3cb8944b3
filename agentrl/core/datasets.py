"""Rows of a data set, from a file or a hub, each with the place that error messages name.

Files are JSON lines, a JSON array, CSV or Parquet; JSON lines and CSV may be gzipped. Of a file
whose rows say which split they belong to (`split`), `FILE@test` are those of one. A hub's data set
is named `hub:owner/name` or `hub:owner/name/config`, then `@split` (as in
`hub:openai/gsm8k/main@train`); in the place of the config may stand a file of the repository, or
several by a pattern, read as split `train` (`hub:owner/name/test*.jsonl@train`). Hubs need the
extra `hub`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, wraps
from pathlib import Path
from typing import BinaryIO, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from agentrl.core.errors import DataError, SetupError

HUB = "hub:"
"""Prefix of a source that is no file."""

_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_GZIP_MAGIC = b"\x1f\x8b"

P = ParamSpec("P")
T = TypeVar("T")


class Row(NamedTuple):
    """A row of a data set, with the place that error messages name."""

    place: str
    data: Mapping[str, object]

    def value(self, key: str) -> object:
        """The value of `key`, which must be there."""
        if key not in self.data:
            found = ", ".join(map(repr, self.data)) or "none"
            raise DataError(f"{self.place}: the row has no {key!r}. Its keys: {found}")
        return self.data[key]

    def text(self, key: str, *, empty: bool = False) -> str:
        """The text of `key`; blank only where `empty`."""
        value = self.value(key)
        if not isinstance(value, str):
            raise DataError(f"{self.place}: {key!r} must be text, got {shown(value)}")
        if not value.strip() and not empty:
            raise DataError(f"{self.place}: {key!r} is empty")
        return value

    def id(self, key: str = "id") -> str:
        """The text or whole number of `key`, as text."""
        value = self.value(key)
        return str(value) if type(value) is int else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts of `key`."""
        value = self.value(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"{self.place}: {key!r} must be a list of texts, got {shown(value)}")
        return tuple(value)

    def count(self, key: str) -> int:
        """The whole number of `key`, not negative."""
        value = self.value(key)
        if type(value) is not int or value < 0:
            raise DataError(f"{self.place}: {key!r} must be a whole number, got {shown(value)}")
        return value


def read_rows(source: str | Path, *, name: str = "data set") -> Iterator[Row]:
    """The rows of `source` in its order; `name` says in errors what the file should be.

    Raises:
        DataError: naming file, line and what was found there.
        SetupError: a hub source without the package that reads it, or out of reach.
    """
    if isinstance(source, str) and source.startswith(HUB):
        return _hub_rows(source)
    path = data_file(source)
    rows = _file_rows(path, name)
    if path == Path(source):
        return rows
    return _of_split(rows, path, str(source).rpartition("@")[2])


def data_file(source: str | Path) -> Path:
    """The file of a source that is no hub's: without the `@split` that may stand behind it."""
    head, at, _ = str(source).rpartition("@")
    given = Path(source)
    return Path(head) if at and not given.exists() and Path(head).is_file() else given


def _of_split(rows: Iterator[Row], path: Path, split: str) -> Iterator[Row]:
    found: set[str] = set()
    for row in rows:
        found.add(row.text("split"))
        if row.data["split"] == split:
            yield row
    if split not in found:
        known = ", ".join(sorted(found)) or "none"
        raise DataError(f"{path}: no row is of split {split!r}. Splits there: {known}")


def _file_rows(path: Path, name: str) -> Iterator[Row]:
    suffixes = [one for one in path.suffixes if one != ".gz"]
    suffix = suffixes[-1].lower() if suffixes else ""
    if suffix == ".parquet":
        return _guarded(path, name, _parquet_rows(path))
    if suffix == ".csv":
        return _guarded(path, name, _csv_rows(path))
    if suffix == ".json":
        return _guarded(path, name, _array_rows(path))
    return _guarded(path, name, _lines(path))


def read_once(read: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """`read(source, ...)`, called again only for a file that was written anew.

    The last 16 results are kept and handed to all who ask, so nobody may change one.
    """

    @lru_cache(maxsize=16)
    def kept(source: str, version: tuple[int, int] | None, *args: P.args, **kwargs: P.kwargs) -> T:
        return read(source, *args, **kwargs)

    @wraps(read)
    def found(source: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return kept(source, _version(source), *args, **kwargs)  # type: ignore[arg-type]

    return found


def _version(source: str) -> tuple[int, int] | None:
    """Size and time of a file; None for what is no file."""
    path = data_file(source)
    if source.startswith(HUB) or not path.is_file():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def shown(value: object) -> str:
    """`value` as JSON, short enough for an error message."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _guarded(path: Path, name: str, rows: Iterator[Row]) -> Iterator[Row]:
    place = str(path)
    try:
        for row in rows:
            place = row.place
            yield row
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such {name}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a {name} must be a file, this is a folder") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        after = "" if place == str(path) else " after this row"
        raise DataError(f"{place}: the gzip file is damaged or cut short{after}") from error


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path)) if zipped else path.open("rb")


def _lines(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                place = f"{path}:{number}"
                yield _object(_json(raw, place), place)


def _array_rows(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        found = _json(file.read(), str(path))
    if not isinstance(found, list):
        raise DataError(f"{path}: a .json data set must be an array of rows, got {shown(found)}")
    for number, row in enumerate(found):
        yield _object(row, f"{path}[{number}]")


def _csv_rows(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
        try:
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{place}: not as many fields as the first line names")
                yield Row(place, row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}:{reader.line_num + 1}: not CSV: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    yield Row(f"{path}[{number}]", row)
                    number += 1
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a whole Parquet file: {error}") from error


def _hub_rows(source: str) -> Iterator[Row]:
    name, at, split = source.removeprefix(HUB).partition("@")
    owner_name_config = name.split("/")
    if len(owner_name_config) not in (2, 3) or not at or not all((*owner_name_config, split)):
        raise DataError(
            f"{source!r} names no data set of a hub: write hub:owner/name@split, "
            "hub:owner/name/config@split or hub:owner/name/file.jsonl@train"
        )
    try:
        import datasets
    except ImportError as error:
        raise SetupError(
            f'{source} needs the package datasets: pip install "agentrl[hub]"'
        ) from error
    config = owner_name_config[2] if len(owner_name_config) == 3 else None
    try:
        builder = _BUILDERS.get(Path(config or "").suffix)
        if builder:
            files = f"hf://datasets/{name}"
            found = datasets.load_dataset(builder, data_files=files, split=split)
        else:
            found = datasets.load_dataset("/".join(owner_name_config[:2]), config, split=split)
    except Exception as error:
        # The library raises errors of a dozen packages.
        said = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise SetupError(
            f"{source} could not be read: {type(error).__name__}: {said}. Check its name and the "
            "network, or give a local file"
        ) from error
    for number, row in enumerate(found):
        yield Row(f"{source}[{number}]", row)


def _json(raw: bytes, place: str) -> object:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 at byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        # Some of Python's messages end in "at" themselves.
        said = error.msg.removesuffix(" at")
        raise DataError(f"{place}: not JSON: {said} at column {error.colno}") from error


def _object(row: object, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place}: a row must be a JSON object, got {shown(row)}")
    return Row(place, row)

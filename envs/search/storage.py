"""A search index in a folder: written once, checked against its corpus, opened memory-mapped.

A folder appears only when it is whole: everything is written to a folder beside it, `meta.json`
last, and then renamed. It is trusted while the corpus has the size and the time of change noted
in it, or failing that the same content; otherwise it is built anew. What is opened is mapped, not
read, except for the vocabulary (about a quarter of a second for each million words).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import DataError

from .index import Bm25Index, Scoring, shared
from .kernels import Backend, Postings
from .records import Passage
from .sources import read_corpus

_VERSION = 1
_META = "meta.json"
_ARRAYS = ("scores.npy", "documents.npy", "starts.npy", "peaks.npy", "offsets.npy")
_TEXTS = ("vocabulary.txt", "passages.bin")


class Fingerprint(NamedTuple):
    """What identifies a corpus file: bytes, nanoseconds since 1970, and a digest of its content."""

    size: int
    changed: int
    digest: str

    @classmethod
    def of(cls, corpus: Path) -> Fingerprint:
        """The fingerprint of a file, which is read whole."""
        status = corpus.stat()
        with corpus.open("rb") as file:
            digest = hashlib.file_digest(file, hashlib.blake2b).hexdigest()
        return cls(status.st_size, status.st_mtime_ns, digest)

    def matches(self, corpus: Path) -> bool:
        """Whether the file is unchanged; its content is read only where its time differs."""
        status = corpus.stat()
        if status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.changed or Fingerprint.of(corpus).digest == self.digest


class PassageFile(Sequence[Passage]):
    """The passages of a folder, each decoded when asked for."""

    def __init__(self, folder: Path) -> None:
        self._ends = np.load(folder / "offsets.npy", mmap_mode="r")
        with (folder / "passages.bin").open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._ends) // 3

    @overload
    def __getitem__(self, place: int) -> Passage: ...
    @overload
    def __getitem__(self, place: slice) -> list[Passage]: ...
    def __getitem__(self, place: int | slice) -> Passage | list[Passage]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(f"passage {place} of {len(self)}")
        start = int(self._ends[3 * place - 1]) if place else 0
        title, text, end = self._ends[3 * place : 3 * place + 3].tolist()
        data = self._bytes
        return Passage(
            _decoded(data[start:title]), _decoded(data[title:text]), _decoded(data[text:end])
        )


def save_index(index: Bm25Index, folder: Path, *, source: Fingerprint) -> None:
    """Write `index` to `folder`, in place of what is there; at no moment is it there in part."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(index, partial, source)
        _replace(folder, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_index(folder: Path, *, backend: Backend | None = None) -> Bm25Index:
    """The index of `folder`, mapped.

    Raises:
        DataError: the folder does not hold a whole index of this version.
    """
    meta = _meta(folder)
    arrays = {name: np.load(folder / name, mmap_mode="r") for name in _ARRAYS[:-1]}
    lines = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = dict(zip(lines, range(len(lines)), strict=True))
    # `asarray` keeps the mapping and drops the memmap type, which compiled code does not know.
    postings = Postings(*(np.asarray(array) for array in arrays.values()))
    return Bm25Index(
        PassageFile(folder), postings, vocabulary, scoring=meta.scoring, backend=backend
    )


def load_index(
    corpus: str | Path,
    *,
    folder: str | Path | None = None,
    scoring: Scoring | None = None,
    backend: Backend | None = None,
) -> Bm25Index:
    """The index of a corpus file: in memory, or from `folder`, which is made or renewed if needed.

    Raises:
        DataError: the corpus is missing or malformed.
    """
    corpus, scoring = Path(corpus), scoring or Scoring()
    if folder is None:
        return Bm25Index.build(read_corpus(corpus), scoring=scoring, backend=backend)
    folder = Path(folder)
    if not corpus.is_file():
        raise DataError(f"{corpus}: there is no such corpus")
    if why_unusable(folder, corpus, scoring=scoring) is not None:
        # Taken before the corpus is read: a change while it is being indexed makes it stale.
        source = Fingerprint.of(corpus)
        index = Bm25Index.build(read_corpus(corpus), scoring=scoring)
        save_index(index, folder, source=source)
    return open_index(folder, backend=backend)


def shared_index(
    corpus: str | Path,
    *,
    folder: str | Path | None = None,
    scoring: Scoring | None = None,
) -> Bm25Index:
    """`load_index`, once in this process for each state of the corpus file.

    Raises:
        DataError: the corpus is missing or malformed.
    """
    path = Path(corpus).resolve()
    if not path.is_file():
        raise DataError(f"{corpus}: there is no such corpus")
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns, str(folder), scoring or Scoring())
    return shared(key, lambda: load_index(corpus, folder=folder, scoring=scoring))


def why_unusable(folder: Path, corpus: Path, *, scoring: Scoring) -> str | None:
    """Why the index in `folder` is not one of `corpus`, or None where it is."""
    try:
        meta = _meta(folder)
    except DataError as error:
        return str(error)
    if meta.scoring != scoring:
        return f"{folder}: was built with {meta.scoring}, not {scoring}"
    if not meta.source.matches(corpus):
        return f"{folder}: {corpus} has changed since it was indexed"
    return None


def _decoded(data: bytes) -> str:
    # JSON may hold half of a surrogate pair, which strict UTF-8 refuses.
    return data.decode(errors="surrogatepass")


class _Meta(NamedTuple):
    scoring: Scoring
    source: Fingerprint


def _meta(folder: Path) -> _Meta:
    """What the folder says of itself, once its files are seen to be whole."""
    path = folder / _META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version, sizes = meta["version"], meta["sizes"]
        found = _Meta(Scoring(*meta["scoring"]), Fingerprint(*meta["source"]))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: holds no search index ({_META} is missing)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: does not describe a search index: {error!r}") from error
    if version != _VERSION:
        raise DataError(f"{folder}: is a search index of version {version}, not {_VERSION}")
    for name, size in sizes.items():
        file = folder / name
        actual = file.stat().st_size if file.exists() else 0
        if actual != size:
            raise DataError(f"{file}: is damaged: it has {actual} bytes and should have {size}")
    return found


def _write(index: Bm25Index, folder: Path, source: Fingerprint) -> None:
    ends: npt.NDArray[np.int64] = np.zeros(3 * len(index), np.int64)
    at = 0
    with (folder / "passages.bin").open("wb") as file:
        for place, passage in enumerate(index.passages):
            for field, text in enumerate(passage):
                at += file.write(text.encode(errors="surrogatepass"))
                ends[3 * place + field] = at
    arrays: list[npt.NDArray[Any]] = [*index.postings, ends]
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(folder / name, array)
    # Words hold no line end, and are numbered in order of insertion.
    (folder / "vocabulary.txt").write_text("\n".join(index.vocabulary), encoding="utf-8")
    sizes = {name: (folder / name).stat().st_size for name in (*_ARRAYS, *_TEXTS)}
    meta = {"version": _VERSION, "scoring": index.scoring, "source": source, "sizes": sizes}
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _replace(folder: Path, partial: Path) -> None:
    """Rename `partial` to `folder`; what was there is moved away first and then deleted."""
    for _ in range(10):
        try:
            os.rename(partial, folder)
            return
        except OSError:
            if not folder.exists():
                raise
        # Another process may be doing the same: whoever loses this race tries again.
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        try:
            os.rename(folder, old / "index")
        except FileNotFoundError:
            continue
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise DataError(f"{folder}: could not be replaced, several processes write to it")

"""A database of records that copies what is changed and shares the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
Tables: TypeAlias = Mapping[str, Mapping[str, Record]]


class Database:
    """Tables of records by id over a base that is never changed.

    A record is copied when it is first changed, so a copy of the database costs no more than what
    the episode changed.
    """

    def __init__(self, base: Tables) -> None:
        self._base = base
        self._changed: dict[tuple[str, str], Record] = {}

    def get(self, table: str, id_: str) -> Record | None:
        """A record to read and never to change, or None."""
        found = self._changed.get((table, id_))
        return self._base[table].get(id_) if found is None else found

    def edit(self, table: str, id_: str) -> Record:
        """The record to change; it must be there."""
        if (table, id_) not in self._changed:
            self._changed[table, id_] = copy.deepcopy(self._base[table][id_])
        return self._changed[table, id_]

    def put(self, table: str, id_: str, record: Record) -> None:
        """Add a record, or replace one."""
        self._changed[table, id_] = record

    def rows(self, table: str) -> Iterator[Record]:
        """All records, those of the base first, each in its order."""
        base = self._base[table]
        for id_, record in base.items():
            yield self._changed.get((table, id_), record)
        for (name, id_), record in self._changed.items():
            if name == table and id_ not in base:
                yield record

    def fork(self) -> Database:
        """The same state, changed apart from now on."""
        twin = Database(self._base)
        twin._changed = copy.deepcopy(self._changed)
        return twin

    def same_as(self, other: Database) -> bool:
        """Whether both hold the same records; the base must be the same one."""
        touched = self._changed.keys() | other._changed.keys()
        return all(self.get(*place) == other.get(*place) for place in touched)

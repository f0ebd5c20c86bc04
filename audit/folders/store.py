"""A SQLite file with a row for each picture, from which a killed audit continues."""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...options.errors import PackError
from ...options.words import amount
from ...storage.differing import difference
from ..rules import Rules
from .recount import detected, recount

logger = logging.getLogger(__name__)

BATCH = 500  # keys looked up, or rows written, at a time
VERSION = 2  # of the file; 1 did not say which prompt file and which detector its rows are of
# The order of this join is kept by SQLite: the selected one after the other, by key, with nothing
# sorted in memory.
_SELECTED = (
    "from wanted cross join pictures on pictures.key = wanted.key and pictures.stamp = wanted.stamp"
)

Item = TypeVar("Item")
# what goes wrong with the file while it is used, by how SQLite calls it, and the way out
_BUSY = "another run is writing to it. Wait for it to end, or choose another name"
_FAULTS = {
    "SQLITE_BUSY": _BUSY,
    "SQLITE_LOCKED": _BUSY,
    "SQLITE_FULL": (
        "the disk is full. Make room, and start the same run again: it continues with what is kept"
    ),
    "SQLITE_READONLY": "this user may not write to it. Allow it, or choose another name",
    "SQLITE_CANTOPEN": "this user can't open it. Allow it, or choose another name",
    "SQLITE_IOERR": (
        "the disk can't be read or written. When it can, the same run continues with what is kept"
    ),
}
_DAMAGED = "it is damaged, or is not a file of an audit. Put a copy back, or choose another name"
WAY_OUT = "Give this audit another name, or delete that file."


class StoreError(PackError, ValueError):
    """The file can't be used, or holds another audit's rows, or no audit's."""


class Store:
    """Rows by key, as JSON beside a stamp.

    Nothing is ever deleted: `select` says which rows a run is about. `identity` says what was
    audited and how, all of it or, to look only, a `partial` one; another one's file is refused, and
    one with rows when there is something `untold`. `names` are what people call some of its values.
    With `rules`, rows that differ only in how they are counted are counted by these.
    Whatever is wrong with the file is a StoreError. The columns `flagged` and `unreadable` are for
    whoever opens it with SQL; `data` is the row.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        names: Mapping[str, str] | None = None,
        *,
        untold: Sequence[str] = (),
        partial: bool = False,
        rules: Rules | None = None,
    ):
        self.path, self.untold, self.partial = Path(path), untold, partial
        self.rules = rules
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as failed, _told(self.path):
            if not self.path.exists():
                self.path.touch()  # SQLite's own files are nobody's to write but the owner's
            self.connection = sqlite3.connect(self.path)
            failed.callback(self.connection.close)
            self._open(json.loads(json.dumps(identity)), names or {})
            failed.pop_all()

    def _open(self, identity: dict[str, Any], names: Mapping[str, str]) -> None:
        self.connection.execute("pragma journal_mode = wal")
        # a crash of the machine may lose the last rows, never the file
        self.connection.execute("pragma synchronous = normal")
        self.connection.execute("create table if not exists audit (identity text, names text)")
        self.connection.execute(
            "create table if not exists pictures "
            "(key text primary key, stamp text, flagged integer, unreadable text, data text)"
        )
        self.connection.execute(
            "create temp table wanted (number integer primary key, key text unique, stamp text)"
        )
        if self.connection.execute("select count(*) from audit").fetchone()[0]:
            return self._check(identity, names)
        if self.partial:
            return
        with self.connection:
            self.connection.execute(
                "insert into audit values (?, ?)", (json.dumps(identity), json.dumps(names))
            )
            self.connection.execute(f"pragma user_version = {VERSION}")

    def _check(self, identity: dict[str, Any], names: Mapping[str, str]) -> None:
        """Raise StoreError unless the rows in the file are this audit's."""
        count = self.connection.execute("select count(*) from pictures").fetchone()[0]
        if self.connection.execute("pragma user_version").fetchone()[0] != VERSION:
            raise StoreError(
                f"{self.path} was made by an earlier version of this pack, and its"
                f" {amount(count, 'row')} can't be continued. {WAY_OUT}"
            )
        if count and self.untold:
            raise StoreError(
                f"{self.path} holds {amount(count, 'row')}, and it can't be known whether this"
                f" model made them: {self.untold[0]}. {WAY_OUT}"
            )
        known, called = map(
            json.loads, self.connection.execute("select identity, names from audit").fetchone()
        )
        if self.partial:
            known = {key: known.get(key) for key in identity}
        if self.rules and known != identity and detected(known) == detected(identity):
            if not self.partial:
                self._recount(self.rules, identity, names)
        elif known != identity:
            raise StoreError(
                f"{self.path} holds {amount(count, 'row')} of an audit made with another"
                f" {difference(known, identity, called, names)}. {WAY_OUT}"
            )

    def _recount(self, rules: Rules, identity: dict[str, Any], names: Mapping[str, str]) -> None:
        with self.connection:
            count = recount(self.connection, rules)
            self.connection.execute(
                "update audit set identity = ?, names = ?",
                (json.dumps(identity), json.dumps(names)),
            )
        logger.info(
            "%s counted again by the preset %s, from the detections in %s",
            amount(count, "picture"),
            rules.preset.name,
            self.path.name,
        )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def select(self, wanted: Iterable[tuple[str, str]]) -> None:
        """From now on the store is about the rows of these (key, stamp); others are left out."""
        with _told(self.path):
            self.connection.execute("delete from wanted")
        for batch in batched(wanted, BATCH):
            with _told(self.path), self.connection:
                self.connection.executemany(
                    "insert or ignore into wanted (key, stamp) values (?, ?)", batch
                )

    def missing(self, again: bool = False) -> Iterator[tuple[str, str]]:
        """Those selected that have no row, or one of another stamp; rows may be added meanwhile.

        With `again` those too whose row is `unreadable`.
        """
        query = (
            "select number, key, stamp from wanted where number > ? and not exists"
            " (select 1 from pictures where pictures.key = wanted.key"
            " and pictures.stamp = wanted.stamp and (unreadable is null or not ?))"
            " order by number limit ?"
        )
        last = 0
        while batch := self._asked(query, last, again, BATCH):
            yield from ((key, stamp) for _, key, stamp in batch)
            last = batch[-1][0]

    def add(self, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Write rows (key, stamp, data), all or none."""
        with _told(self.path), self.connection:
            self.connection.executemany(
                "insert or replace into pictures values (?, ?, ?, ?, ?)",
                [
                    (
                        key,
                        stamp,
                        data.get("flagged"),
                        data.get("unreadable"),
                        json.dumps(data, ensure_ascii=False),
                    )
                    for key, stamp, data in rows
                ],
            )

    def wanted(self) -> int:
        """How many are selected."""
        return self._asked("select count(*) from wanted")[0][0]

    def count(self) -> int:
        """How many of the selected have their row."""
        return self._asked(f"select count(*) {_SELECTED}")[0][0]

    def left_out(self) -> int:
        """How many rows are here that were not selected."""
        query = (
            "select count(*) from pictures"
            " where not exists (select 1 from wanted where wanted.key = pictures.key)"
        )
        return self._asked(query)[0][0]

    def all(self) -> Iterator[dict[str, Any]]:
        """The data of every selected row, by key in code-point order, holding one at a time."""
        with _told(self.path):
            for (data,) in self.connection.execute(f"select data {_SELECTED} order by wanted.key"):
                yield json.loads(data)

    def _asked(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _told(self.path):
            return self.connection.execute(query, values).fetchall()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong with a store's file within, as StoreError: what it is, and the way out."""
    try:
        yield
    except (sqlite3.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {fault_of(error, _DAMAGED)} ({error}).") from error


def fault_of(error: Exception, damaged: str) -> str:
    """What is wrong with an SQLite file, and the way out: `damaged` where it is the file itself."""
    name = getattr(error, "sqlite_errorname", "")
    return next((words for each, words in _FAULTS.items() if name.startswith(each)), damaged)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter (itertools has it from Python 3.12)."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

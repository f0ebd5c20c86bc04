"""What long audits keep as they go: a SQLite file with a row for each picture.

A killed run goes on from it.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

BATCH = 500  # keys looked up, or rows written, at a time
VERSION = 2  # of the file; 1 did not say which prompt file and which detector its rows are of
# The order of this join is kept by SQLite: the selected one after the other, by key, with nothing
# sorted in memory.
_SELECTED = (
    "from wanted cross join pictures on pictures.key = wanted.key and pictures.stamp = wanted.stamp"
)


class StoreError(ValueError):
    """The file holds another audit's rows, or no audit's."""


class Store:
    """Rows by key, as JSON beside a stamp.

    Nothing is ever deleted: `select` says which rows a run is about. `identity` says what was
    audited and how; another one's file is refused (StoreError). `names` are what people call some
    of its values. The columns `flagged` and `unreadable` are for whoever opens the file with SQL;
    `data` is the row.
    """

    def __init__(self, path: Path, identity: Mapping, names: Mapping[str, str] | None = None):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.touch()  # SQLite's own files are nobody's to write but the owner's
        self.rows = sqlite3.connect(self.path)
        try:
            self._open(json.loads(json.dumps(identity)), names or {})
        except sqlite3.DatabaseError as error:
            self.rows.close()
            raise StoreError(
                f"{self.path}: this is not the file of an audit ({error}). Give another name."
            ) from error
        except StoreError:
            self.rows.close()
            raise

    def _open(self, identity: dict, names: Mapping[str, str]) -> None:
        self.rows.execute("pragma journal_mode = wal")
        # a crash of the machine may lose the last rows, never the file
        self.rows.execute("pragma synchronous = normal")
        self.rows.execute("create table if not exists audit (identity text, names text)")
        self.rows.execute(
            "create table if not exists pictures "
            "(key text primary key, stamp text, flagged integer, unreadable text, data text)"
        )
        self.rows.execute(
            "create temp table wanted (number integer primary key, key text unique, stamp text)"
        )
        if self.rows.execute("select count(*) from audit").fetchone()[0]:
            return self._check(identity, names)
        with self.rows:
            self.rows.execute(
                "insert into audit values (?, ?)", (json.dumps(identity), json.dumps(names))
            )
            self.rows.execute(f"pragma user_version = {VERSION}")

    def _check(self, identity: dict, names: Mapping[str, str]) -> None:
        """Raise StoreError unless the rows in the file are this audit's."""
        count = self.rows.execute("select count(*) from pictures").fetchone()[0]
        way_out = "Give this one another name, or delete that file."
        if self.rows.execute("pragma user_version").fetchone()[0] != VERSION:
            raise StoreError(
                f"{self.path} was made by an earlier version of this pack, which did not keep what"
                f" its {count} rows are of: they can't be gone on with. {way_out}"
            )
        known, called = map(
            json.loads, self.rows.execute("select identity, names from audit").fetchone()
        )
        if known != identity:
            what, before, now = _difference(known, identity)
            values = f" ({_shown(before, called.get(what))}; now {_shown(now, names.get(what))})"
            raise StoreError(
                f"{self.path} holds {count} rows of an audit made with another {what}"
                f"{values if len(values) < 200 else ''}. {way_out}"
            )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        self.rows.close()

    def select(self, wanted: Iterable[tuple[str, str]]) -> None:
        """From now on this is about the rows of these (key, stamp), in any number.

        The others are kept and left out.
        """
        self.rows.execute("delete from wanted")
        for batch in batched(wanted, BATCH):
            with self.rows:
                self.rows.executemany(
                    "insert or ignore into wanted (key, stamp) values (?, ?)", batch
                )

    def missing(self) -> Iterator[tuple[str, str]]:
        """Those selected that have no row, or one of another stamp; rows may be added meanwhile."""
        query = (
            "select number, key, stamp from wanted where number > ? and not exists"
            " (select 1 from pictures where pictures.key = wanted.key"
            " and pictures.stamp = wanted.stamp) order by number limit ?"
        )
        last = 0
        while batch := self.rows.execute(query, (last, BATCH)).fetchall():
            yield from ((key, stamp) for _, key, stamp in batch)
            last = batch[-1][0]

    def add(self, rows: Iterable[tuple[str, str, Mapping]]) -> None:
        """Write rows (key, stamp, data), all or none."""
        with self.rows:
            self.rows.executemany(
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

    def count(self) -> int:
        """How many of the selected have their row."""
        return self.rows.execute(f"select count(*) {_SELECTED}").fetchone()[0]

    def left_out(self) -> int:
        """How many rows are here that were not selected."""
        query = (
            "select count(*) from pictures"
            " where not exists (select 1 from wanted where wanted.key = pictures.key)"
        )
        return self.rows.execute(query).fetchone()[0]

    def all(self) -> Iterator[dict]:
        """The data of every selected row, by key in code-point order, holding one at a time."""
        for (data,) in self.rows.execute(f"select data {_SELECTED} order by wanted.key"):
            yield json.loads(data)


def _difference(before: Mapping, now: Mapping) -> tuple[str, object, object]:
    """What the first difference of two identities is called, and both values."""
    key = next(key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key))
    one, two = before.get(key), now.get(key)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        inner, one, two = _difference(one, two)
        key = f"{key} {inner}"
    return key, one, two


def _shown(value, name: str | None) -> str:
    text = value[:12] if isinstance(value, str) and len(value) == 64 else str(value)  # a digest
    return f"{name}, {text}" if name else text


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items, the last one shorter (itertools has it from Python 3.12)."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

"""What long audits keep as they go: a SQLite file with a row for each picture, which a killed run goes on from."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

BATCH = 500  # keys looked up, or rows written, at a time


class StoreError(ValueError):
    """The file holds another audit's rows, or no audit's."""


class Store:
    """Rows by key, as JSON beside a stamp. `identity` says what was audited and how; another one's file is refused.

    The columns `flagged` and `unreadable` are there for whoever opens the file with SQL; `data` has the whole row.
    """

    def __init__(self, path: Path, identity: Mapping):
        self.path, text = Path(path), json.dumps(identity, sort_keys=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open(text)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: this is not the file of an audit ({error}). Give another name.") from error

    def _open(self, text: str) -> None:
        self.rows = sqlite3.connect(self.path)
        self.rows.execute("pragma journal_mode = wal")
        self.rows.execute("pragma synchronous = normal")  # a crash of the machine may lose the last rows, never the file
        self.rows.execute("create table if not exists audit (identity text)")
        self.rows.execute(
            "create table if not exists pictures "
            "(key text primary key, stamp text, flagged integer, unreadable text, data text)"
        )
        known = self.rows.execute("select identity from audit").fetchone()
        if known is None:
            self.rows.execute("insert into audit values (?)", (text,))
            self.rows.commit()
        elif known[0] != text:
            before, now = json.loads(known[0]), json.loads(text)
            changed = next(key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key))
            self.rows.close()
            values = f" ({before.get(changed)}; now {now.get(changed)})"
            values = values if len(values) < 200 else ""
            raise StoreError(
                f"{self.path} holds an audit made with another {changed}{values}. Give this one "
                "another name, or delete that file."
            )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        self.rows.close()

    def missing(self, keys: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Those of the (key, stamp) that have no row, or one of another stamp."""
        for batch in batched(keys, BATCH):
            marks = ",".join("?" * len(batch))
            query = f"select key, stamp from pictures where key in ({marks})"
            known = set(self.rows.execute(query, [key for key, _ in batch]))
            yield from (each for each in batch if each not in known)

    def add(self, rows: Iterable[tuple[str, str, Mapping]]) -> None:
        """Write rows (key, stamp, data), all or none."""
        with self.rows:
            self.rows.executemany(
                "insert or replace into pictures values (?, ?, ?, ?, ?)",
                [
                    (key, stamp, data.get("flagged"), data.get("unreadable"), json.dumps(data, ensure_ascii=False))
                    for key, stamp, data in rows
                ],
            )

    def count(self) -> int:
        return self.rows.execute("select count(*) from pictures").fetchone()[0]

    def all(self) -> Iterator[dict]:
        """Every row's data, by key in code-point order, without holding more than one."""
        for (data,) in self.rows.execute("select data from pictures order by key"):
            yield json.loads(data)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Drop the rows of other keys: of files that are gone since."""
        self.rows.execute("create temp table present (key text primary key)")
        for batch in batched(keys, BATCH):
            self.rows.executemany("insert or ignore into present values (?)", [(key,) for key in batch])
        with self.rows:
            self.rows.execute("delete from pictures where key not in (select key from present)")
        self.rows.execute("drop table present")


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

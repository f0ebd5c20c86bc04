"""What was looked at, by digest: a bounded SQLite file that outlives the server."""

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

MOST = 200_000  # findings; the oldest go first
SWEEP = 1_000  # findings between two looks at how many there are
_TABLE = (
    "create table if not exists seen (rules text, digest text, counts text, at real,"
    " primary key (rules, digest)) without rowid"
)


@dataclass(frozen=True)
class Finding:
    """What was found of one picture or file: counted detections by class, or why it can't be seen.

    `digest` is its SHA-256.
    """

    digest: str
    counts: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    new: bool = field(default=True, compare=False)  # it was looked at just now

    @property
    def flagged(self) -> bool:
        return bool(self.counts or self.reason)


class Seen:
    """Findings by rules and digest. One under other rules, or that is not there, is looked at.

    A file that is damaged or can't be written is no reason to let anything pass: findings are then
    kept in memory.
    """

    def __init__(self, path: Path | None = None, most: int = MOST):
        self.most, self._lock, self._new = most, threading.Lock(), 0
        try:
            self._connection = self._opened(path)
        except (OSError, sqlite3.Error) as error:
            logger.warning("%s: %s. What is looked at is forgotten at the end.", path, error)
            self._connection = self._opened(None)

    def _opened(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=5)
        with contextlib.ExitStack() as failed:
            failed.callback(connection.close)
            # what the last second loses is looked at again
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = off")
            connection.execute(_TABLE)
            connection.commit()
            failed.pop_all()
        return connection

    def get(self, rules: str, digest: str) -> Finding | None:
        """What was found of it under these rules; None where it has to be looked at."""
        with self._lock:
            try:
                row = self._connection.execute(
                    "select counts from seen where rules = ? and digest = ?", (rules, digest)
                ).fetchone()
                return Finding(digest, json.loads(row[0]), new=False) if row else None
            except (sqlite3.Error, ValueError) as error:
                logger.warning("What was looked at can't be read: %s", error)
                return None

    def put(self, rules: str, *findings: Finding) -> None:
        now = time.time()
        rows = [(rules, each.digest, json.dumps(each.counts), now) for each in findings]
        with self._lock:
            try:
                self._connection.executemany("replace into seen values (?, ?, ?, ?)", rows)
                self._new += len(rows)
                if self._new >= min(SWEEP, self.most):
                    self._sweep()
                self._connection.commit()
            except sqlite3.Error as error:
                logger.warning("What was looked at can't be kept: %s", error)

    def _sweep(self) -> None:
        self._new = 0
        (held,) = self._connection.execute("select count(*) from seen").fetchone()
        if held > self.most:
            self._connection.execute(
                "delete from seen where (rules, digest) in"
                " (select rules, digest from seen order by at limit ?)",
                (held - self.most,),
            )

    def close(self) -> None:
        self._connection.close()

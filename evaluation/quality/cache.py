"""Embeddings by the digest of what they are of, so that a second measure costs nothing."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...audit.folders.store import fault_of
from .embeddings import QualityError, is_whole

FILE = "embeddings.sqlite"
DAMAGED = "the kept embeddings can't be used. Delete this file; they are made again"


class Cache:
    """Vectors in a SQLite file, by the digest of a model and of what it looked at.

    Each is kept at once: between two, other measures of the same run write too.
    """

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(file, timeout=30, isolation_level=None)
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("pragma synchronous = normal")
        self.database.execute(
            "create table if not exists vectors (model text, content text, vector blob,"
            " primary key (model, content)) without rowid"
        )

    def get(self, model: str, content: str) -> np.ndarray | None:
        """What is kept; None of what is not, or is damaged."""
        found = self.database.execute(
            "select vector from vectors where model = ? and content = ?", (model, content)
        ).fetchone()
        if not found or not isinstance(found[0], bytes) or len(found[0]) % 4:
            return None
        return np.frombuffer(found[0], "<f4")

    def put(self, model: str, content: str, vector: np.ndarray) -> None:
        self.database.execute(
            "insert or replace into vectors values (?, ?, ?)",
            (model, content, np.asarray(vector, "<f4").tobytes()),
        )


@contextlib.contextmanager
def cached(folder: Path) -> Iterator[Cache]:
    """A folder's cache. Raises QualityError for a file that can't be used, with the way out."""
    file = folder / FILE
    try:
        cache = Cache(file)
        with contextlib.closing(cache.database):
            yield cache
    except sqlite3.Error as error:
        raise QualityError(f"{file}: {fault_of(error, DAMAGED)} ({error}).") from error


def is_kept(vector: np.ndarray, width: int) -> bool:
    """Whether what was kept is an embedding of this width."""
    return len(vector) == width and is_whole(vector)

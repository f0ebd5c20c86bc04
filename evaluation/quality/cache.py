"""Embeddings by the digest of what they are of, so that a second measure costs nothing."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .embeddings import QualityError, is_whole

FILE = "embeddings.sqlite"
BATCH = 32  # embeddings that a killed run may lose


class Cache:
    """Vectors in a SQLite file, by the digest of a model and of what it looked at."""

    def __init__(self, file: Path):
        self.file, self.unsaved = file, 0
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(file, timeout=30)
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
        self.unsaved += 1
        if self.unsaved >= BATCH:
            self.save()

    def save(self) -> None:
        self.database.commit()
        self.unsaved = 0


@contextlib.contextmanager
def cached(folder: Path) -> Iterator[Cache]:
    """The cache of a folder; what was put is kept however the block ends.

    Raises QualityError for a file that is no cache, with the way out.
    """
    file = folder / FILE
    try:
        cache = Cache(file)
        try:
            yield cache
        finally:
            cache.save()
            cache.database.close()
    except sqlite3.Error as error:
        raise QualityError(
            f"{file}: the kept embeddings can't be used ({error}). Delete this file; they are made"
            " again."
        ) from error


def is_kept(vector: np.ndarray, width: int) -> bool:
    """Whether what was kept is an embedding of this width."""
    return len(vector) == width and is_whole(vector)

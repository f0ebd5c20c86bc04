"""The files below folders, each with a stamp that changes when it does."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...storage.names import written
from ..films import SUFFIXES

# the stamp of what can't be followed, a link or a folder or a pipe: `open_picture` has the reason
UNSEEN = "unseen"


def walk(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(path, stamp) of every file below the paths, in order; a stamp changes when the file does.

    A path is as `written` has it, in UTF-8 whatever the name's bytes. Links are followed once. A
    link that leads nowhere, a pipe, and a folder that can't be listed, are among them, so that they
    are reported.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if path.is_dir():
            yield from _walk(str(path), seen)
        else:
            yield written(path.as_posix()), _stamp(path.stat(), path.name)


def _walk(top: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    left = [top]  # no recursion: folders may lie in each other deeper than Python calls
    while left:
        folder = left.pop()
        try:
            there = Path(folder).stat()
            if (there.st_dev, there.st_ino) in seen:
                continue
            seen.add((there.st_dev, there.st_ino))
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda each: each.name)
        except OSError:
            yield written(Path(folder).as_posix()), UNSEEN
            continue
        folders = []
        for entry in found:
            stamp = UNSEEN
            try:
                if entry.is_dir():
                    folders.append(entry.path)
                    continue
                if entry.is_file():
                    stamp = _stamp(entry.stat(), entry.name)
            except OSError:
                pass  # `open_picture` says why
            yield written(Path(entry.path).as_posix()), stamp
        left += reversed(folders)


def _stamp(found: os.stat_result, path: str) -> str:
    # earlier versions took a film for no picture: it is looked at now
    film = "-film" if Path(path).suffix.lower() in SUFFIXES else ""
    return f"{found.st_size}-{found.st_mtime_ns}{film}"

"""The writer of the evidence log: a line is on the disk before what it tells of goes on.

Several processes may write to one folder: each takes the lock for a line, and reads what the others
wrote since. A process that ends in the middle of a line leaves a beginning without an end; the next
writer ends it, and names its digest in a line `closed`.
"""

import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..options.errors import PackError
from ..storage.faults import told
from .figures import BROKEN, CLOSED, DROPPED, FILE, counts
from .files import (
    LOCK,
    MODE,
    WRITE,
    file_from,
    files_of,
    lines_in,
    read_head,
    sync_folder,
    write_head,
)
from .lines import START, Line, days_since, digest_of, new_line, parsed

WAIT = 10.0  # seconds for another process's line
PARTS = 8  # files that the log's size is divided into: the oldest goes when there is no room
FORM = 1  # of the lines


class EvidenceError(PackError, RuntimeError):
    """The evidence log can't be written."""


class Log:
    """The log in a folder, at most `most` bytes of it; `totals` are its figures from the start.

    With `days`, what is older goes too, a file at a time, when there is something to write.
    """

    def __init__(self, folder: Path, most: int, days: int | None = None) -> None:
        self.folder, self.most, self.days = folder, most, days
        self.totals: Counter[str] = Counter()
        self.number, self.digest = 0, START
        self._file: Path | None = None  # the newest
        self._at = 0  # how many bytes of it are known
        self._torn: list[str] = []  # digests of beginnings that no line follows yet
        self._unended = False
        self._begun = False  # whether the newest has the figures so far
        self._since = ""  # when it began
        self._head: tuple[int, str] | None = None  # how far the log went, as far as that is known
        self._missing = ""  # what the head knows and the files do not
        self._mine = threading.RLock()

    def record(self, kind: str, facts: Mapping[str, Any]) -> Line:
        """Write a line; it is on the disk when this returns. Raises EvidenceError."""
        try:
            with self._alone():
                self._catch_up()
                for own, about in self._of_itself():
                    self._append(own, about)
                full = self._at >= self.most // PARTS or self._is_old(self._since, 1)
                if self._file is None or full:
                    self._new_file()
                elif not self._begun:
                    self._begin_file()
                return self._append(kind, facts)
        except Timeout as error:
            why = f"another process holds {LOCK} in it for {WAIT:g} seconds"
            raise EvidenceError(self._cannot(why)) from error
        except (OSError, ValueError) as error:
            raise EvidenceError(self._cannot(told(error))) from error

    def _cannot(self, why: str) -> str:
        return f"The evidence log in {self.folder} can't be written: {why}."

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._mine:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / LOCK, timeout=WAIT, mode=MODE):
                try:
                    yield
                except BaseException:  # what is on the disk now is not known: read it again
                    self._file = None
                    raise

    def _catch_up(self) -> None:
        """Read what others wrote since, or all from the newest file that has the figures so far."""
        files = files_of(self.folder)
        newest = files[-1] if files else None
        if newest is None or newest != self._file or newest.stat().st_size < self._at:
            self._read_again(files)
        elif newest.stat().st_size > self._at:
            self._read(newest)

    def _read_again(self, files: Sequence[Path]) -> None:
        """Forget what is known, read again, and hold the head against what lies there."""
        self._file, self._torn, self._unended, self._missing = None, [], False, ""
        self._head = read_head(self.folder)
        self.number, self.digest = 0, START
        if not files:
            self.number, self.digest = self._head or (0, START)
        elif self._head is None:
            self._missing = "the file `head` is missing or can't be read"
        begun = [place for place, file in enumerate(files) if _figures_in(file)]
        for file in files[begun[-1] if begun else 0 :]:
            self._file, self._at, self._begun = file, 0, False
            self._read(file)
        if self._head and self._head[0] > (self.number if files else 0):
            first = self.number + 1 if files else 1
            self._missing = f"lines {first} to {self._head[0]} were written and are gone"
        if self._head is None:
            write_head(self.folder)

    def _read(self, file: Path) -> None:
        """Go on in a file from what is known of it."""
        for raw, ended, place in lines_in(file, self._at):
            self._at, self._unended = place, not ended
            line = parsed(raw)
            # one that lacks its end alone is whole: the next write begins with it
            if line and (ended or (line.number, line.before) == (self.number + 1, self.digest)):
                self._take(line)
            else:
                self._torn.append(digest_of(raw))

    def _of_itself(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What the log has to say before its next line."""
        if self._torn:
            yield CLOSED, {"torn": self._torn}
        if self._missing:
            yield BROKEN, {"why": self._missing}

    def _take(self, line: Line) -> None:
        """Go on from a line."""
        number, digest = self._head or (0, START)
        known = {line.number: line.digest, line.number - 1: line.before}
        if known.get(number, digest) != digest:
            self._missing = f"line {number} was changed after it was written"
        if line.kind == FILE:
            self.totals, self._begun, self._since = _totals(line), True, line.time
        if line.kind == BROKEN:
            self._missing = ""
        self.totals.update(counts(line))
        self.number, self.digest, self._torn = line.number, line.digest, []

    def _append(self, kind: str, facts: Mapping[str, Any]) -> Line:
        """The next line, down to the disk, and then the head."""
        if self._file is None:
            self._file, self._at = file_from(self.folder, self.number + 1), 0
        line = new_line(self.number + 1, self.digest, kind, facts)
        data = (b"\n" if self._unended else b"") + line.raw + b"\n"
        new = not self._file.exists()
        opened = os.open(self._file, WRITE | os.O_APPEND, MODE)
        try:
            written = os.write(opened, data)
            if written < len(data):
                raise OSError(f"it took {written} of {len(data)} B")
            os.fsync(opened)
        finally:
            os.close(opened)
        if new:
            sync_folder(self.folder)
        self._at += len(data)
        self._unended = False
        self._take(line)
        self._head = line.number, line.digest
        write_head(self.folder, *self._head)
        return line

    def _begin_file(self) -> None:
        self._append(FILE, {"form": FORM, "totals": dict(self.totals)})

    def _is_old(self, time: str, parts: int) -> bool:
        """Whether so many of the PARTS of the age limit have passed since a time."""
        return self.days is not None and days_since(time) > self.days * parts / PARTS

    def _new_file(self) -> None:
        """Begin a file with the figures so far, and drop the oldest ones."""
        self._file, self._at = file_from(self.folder, self.number + 1), 0
        self._begin_file()
        files = files_of(self.folder)
        sizes = {each: each.stat().st_size for each in files}
        room = self.most - self.most // PARTS  # for the one that begins
        while len(files) > 1:
            oldest, second = files[:2]
            line = next(filter(None, (parsed(raw) for raw, *_ in lines_in(second))), None)
            if line is None:
                raise ValueError(f"{second.name} does not hold a whole line")
            about = {"last": line.number - 1, "head": line.before}
            if sum(sizes[each] for each in files) > room:
                about["most_mb"] = self.most // 2**20
            # a part passes while a file is written, and one until the next begins
            elif self._is_old(_last_time(oldest), PARTS - 2):
                about["most_days"] = self.days
            else:
                return
            self._append(DROPPED, about)
            oldest.unlink()
            files = files[1:]


def _last_time(file: Path) -> str:
    """When the last line of a file was written."""
    found = [line.time for raw, *_ in lines_in(file) if (line := parsed(raw))]
    return found[-1] if found else ""


def _totals(line: Line) -> Counter[str]:
    """The figures that a file begins with, whatever somebody made of them."""
    found = line.facts.get("totals")
    counted = found.items() if isinstance(found, dict) else ()
    return Counter({name: count for name, count in counted if type(count) is int})


def _figures_in(file: Path) -> bool:
    """Whether a file begins with the figures so far: it has them before anything else happens."""
    found = (parsed(raw) for raw, *_ in lines_in(file))
    return any(each.kind == FILE for each in itertools.islice(filter(None, found), 3))

"""Whether the log is as it was written: each line follows the one before, and none is missing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..options.words import amount
from .figures import BROKEN, CLOSED, DROPPED
from .files import HEAD, files_of, lines_in, read_head
from .lines import START, Line, digest_of, parsed

TRIES = 3  # files may be dropped while they are read
MOST = 50  # faults that are told one by one


@dataclass
class Verified:
    """What a log is: its lines, the digest of the last one, and what is wrong with it."""

    files: int = 0
    lines: int = 0
    last: int = 0
    digest: str = START
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is no fault, and should be known
    more: int = 0  # faults beyond those

    @property
    def whole(self) -> bool:
        return not self.faults

    def fault(self, words: str) -> None:
        if len(self.faults) < MOST:
            self.faults.append(words)
        else:
            self.more += 1


def verify(folder: Path, known: str = "") -> Verified:
    """Read every line of a log; memory does not grow with it.

    `known` is a digest that somebody noted elsewhere: it must be one of the lines'. Raises
    FileNotFoundError where there is no log, OSError for a file that can't be read.
    """
    for _ in range(TRIES - 1):
        before = files_of(folder)
        try:
            found = _Reader(folder, known).read()
        except FileNotFoundError:
            if not before:
                raise
        else:
            if files_of(folder)[:1] == before[:1]:
                return found
        time.sleep(0.2)  # the oldest file was dropped meanwhile
    return _Reader(folder, known).read()


def read_lines(folder: Path) -> Iterator[Line]:
    """Every whole line, the oldest first. Raises FileNotFoundError where there is no log."""
    for file in _there(folder):
        yield from filter(None, (parsed(raw) for raw, *_ in lines_in(file)))


def _there(folder: Path) -> list[Path]:
    files = files_of(folder)
    if not files and read_head(folder) is None:
        raise FileNotFoundError(f"There is no evidence log in {folder}.")
    return files


class _Reader:
    """One pass over the files, from line to line."""

    def __init__(self, folder: Path, known: str) -> None:
        self.folder, self.known = folder, known
        self.found = Verified()
        self.number, self.digest = 0, START
        self.torn: list[str] = []
        self.first: Line | None = None
        self.dropped: Line | None = None
        self.is_known = False
        self.place = ""

    def read(self) -> Verified:
        files = _there(self.folder)
        self.head = read_head(self.folder)  # before the lines: one more may come meanwhile
        found = self.found
        for file in files:
            self.place = file.name
            for raw, *_ in lines_in(file):
                line = parsed(raw)
                if line is None:
                    self.torn.append(digest_of(raw))
                else:
                    self._follow(line)
        found.files, found.last, found.digest = len(files), self.number, self.digest
        self._check_start()
        self._check_end()
        if self.known and not self.is_known:
            found.fault(f"No line has the digest {self.known}.")
        return found

    def _follow(self, line: Line) -> None:
        found = self.found
        found.lines += 1
        if self.first is None:
            self.first = line
            self.number, self.digest = line.number - 1, line.before
        self._check_torn(line)
        expected = self.number + 1
        if line.number < expected:
            found.fault(f"{self.place}: line {line.number} stands after line {self.number}.")
            return
        if line.number > expected:
            found.fault(f"{self.place}: {_lines(expected, line.number - 1)} missing.")
        elif line.before != self.digest:
            found.fault(
                f"{self.place}: line {self.number} is not as it was written: line {line.number}"
                " has another digest of it."
            )
        if line.kind == BROKEN:
            found.fault(
                f"{self.place}: when line {line.number} was written, {line.facts.get('why')}."
            )
        if line.kind == DROPPED:
            self.dropped = line
        self.number, self.digest = line.number, line.digest
        self.is_known = self.is_known or self.digest == self.known
        if self.head and self.number == self.head[0] and self.digest != self.head[1]:
            found.fault(f"{self.place}: line {self.number} is not as it was written (`{HEAD}`).")

    def _check_torn(self, line: Line) -> None:
        """What is no whole line is the beginning of one, if the next one knows its digest."""
        if line.kind == CLOSED and line.facts.get("torn") == self.torn and self.torn:
            self.found.notes.append(
                f"{self.place}: before line {line.number} a process ended while it wrote;"
                f" {amount(len(self.torn), 'unfinished line')}."
            )
        elif self.torn:
            self.found.fault(
                f"{self.place}: {amount(len(self.torn), 'line')} after line {self.number} can't be"
                " read: changed after they were written, or not written by the log."
            )
        elif line.kind == CLOSED:
            self.found.fault(
                f"{self.place}: the unfinished line before line {line.number} is missing."
            )
        self.torn = []

    def _check_start(self) -> None:
        if self.first is None:
            return
        first = self.first.number
        if first == 1:
            if self.first.before != START:
                self.found.fault("Line 1 follows another line, which is missing.")
            return
        dropped = self.dropped
        if dropped is None or not isinstance(last := dropped.facts.get("last"), int):
            self.found.fault(f"{_lines(1, first - 1).capitalize()} missing, and nothing says why.")
        elif last < first - 1 or (
            last == first - 1 and dropped.facts.get("head") != self.first.before
        ):
            self.found.fault(
                f"{_lines(1, first - 1).capitalize()} missing; only line {last} and those before"
                " were dropped by the log."
            )
        else:
            days = dropped.facts.get("most_days")
            why = f"to keep the log small (max_mb is {dropped.facts.get('most_mb')})"
            if days is not None:
                why = f"for their age (max_days is {days})"
            self.found.notes.append(
                f"Lines 1 to {first - 1} were dropped {why}; the digest of the last of them is"
                f" {self.first.before}."
            )

    def _check_end(self) -> None:
        found = self.found
        if self.torn:
            found.notes.append(
                f"{self.place}: {amount(len(self.torn), 'unfinished line')} at the end: a process"
                " ended while it wrote. The next line will say so."
            )
        if self.head is None:
            found.fault(f"The file `{HEAD}`, which says how far the log went, can't be read.")
        elif self.head[0] > self.number:
            found.fault(f"{_lines(self.number + 1, self.head[0]).capitalize()} missing at the end.")


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"

"""Large files that may leave, by what the disk says of them: a range need not read all again.

A player asks for a video in many ranges. Each would read and hash the whole file; so a large one
that was looked at whole is known by device, inode, size and both times, which every change in place
moves. One that changed so lately that the disk's clock may not tell is not taken.
"""

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SMALLEST = 4 * 2**20  # bytes: what is smaller is read and hashed whole every time
SETTLED = 2 * 10**9  # ns, the coarsest clock of a disk
MOST = 256  # files


class Stamp(NamedTuple):
    """What moves when a file is replaced or written to."""

    device: int
    inode: int
    size: int
    modified: int  # ns
    changed: int  # ns; nobody can set it

    @classmethod
    def of(cls, found: os.stat_result) -> "Stamp":
        times = found.st_mtime_ns, found.st_ctime_ns
        return cls(found.st_dev, found.st_ino, found.st_size, *times)

    @property
    def moved(self) -> int:
        """When it changed last; Windows keeps what the file says of that, and when it came."""
        return max(self.modified, self.changed) if os.name == "nt" else self.changed

    @property
    def tells(self) -> bool:
        """Whether a change from now on shows in it; Windows keeps no time of the last one."""
        if os.name == "nt":
            return False
        settled = time.time_ns() - max(self.modified, self.changed) > SETTLED
        return settled and self.size >= SMALLEST


def stamped(path: Path) -> Stamp | None:
    """A file's stamp; None for a small one, or one that changed just now. Raises OSError."""
    found = Stamp.of(path.stat())
    return found if found.tells else None


class Changed(Exception):
    """A file is not the one that was looked at."""


@dataclass(frozen=True)
class Part:
    """The bytes of a known file, by slices. Raises Changed, OSError."""

    path: Path
    stamp: Stamp
    digest: str

    def __len__(self) -> int:
        return self.stamp.size

    def __getitem__(self, wanted: slice) -> bytes:
        start, stop, _ = wanted.indices(self.stamp.size)
        with self.path.open("rb") as opened:
            self._check(opened.fileno())
            opened.seek(start)
            found = opened.read(max(0, stop - start))
            self._check(opened.fileno())
        return found

    def _check(self, opened: int) -> None:
        if Stamp.of(os.fstat(opened)) != self.stamp:
            raise Changed


class Known:
    """Files and the rules under which they may leave. May be used from any thread."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, tuple[Part, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, rules: str) -> Part | None:
        with self._lock:
            part, under = self._held.get(path, (None, ""))
        return part if under == rules else None

    def put(self, path: Path, before: Stamp | None, digest: str, rules: str) -> None:
        """`before` is what `stamped` gave before the file was read whole."""
        if before is None or Stamp.of(path.stat()) != before:
            return
        with self._lock:
            self._held[path] = Part(path, before, digest), rules
            self._held.move_to_end(path)
            while len(self._held) > MOST:
                self._held.popitem(last=False)

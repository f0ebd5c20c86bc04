"""What an ONNX file holds, whatever its name: a digest of it and of the weight files it names."""

from __future__ import annotations

import hashlib
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

# Protobuf's way of writing the entry "location" of `external_data`, up to the length of its value:
# one byte, or two.
_LOCATION = re.compile(rb"\x0a\x08location\x12(?:([\x00-\x7f])|([\x80-\xff])([\x00-\x7f]))")
FileState = tuple[int, ...]


@dataclass(frozen=True)
class Content:
    """The SHA-256 of a file, or of it and those that it names; and in what state each was read."""

    sha256: str
    states: tuple[tuple[Path, FileState], ...]

    def is_current(self) -> bool:
        """Whether none was changed or replaced since."""
        try:
            return all(_state(path) == state for path, state in self.states)
        except OSError:
            return False


def content_of(file: Path) -> Content:
    """Read a file and those that it names, without holding them. Raises OSError."""
    # the state first: what changes from here on is noticed
    states, digest = [(file, _state(file))], hashlib.sha256()
    for name in _added(file, digest):
        beside = file.parent / name
        if beside.is_file():  # if not, onnxruntime says so
            states.append((beside, _state(beside)))
            digest.update(f"\0{name}\0".encode())
            _added(beside, digest)
    return Content(digest.hexdigest(), tuple(states))


def _added(path: Path, digest: hashlib._Hash) -> list[str]:
    """Add a file to the digest; the names of files of weights in it."""
    if not path.stat().st_size:  # can't be mapped
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        digest.update(content)
        return sorted({_value(content, found) for found in _LOCATION.finditer(content)})


def _value(content: mmap.mmap, found: re.Match[bytes]) -> str:
    short, low, high = found.groups()
    length = short[0] if short else (low[0] & 0x7F) + (high[0] << 7)
    return content[found.end() : found.end() + length].decode("utf-8", "replace")


def _state(path: Path) -> FileState:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino

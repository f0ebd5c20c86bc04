"""Names of files: any of them as a text that UTF-8 holds, and as one that a disk takes."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

LONGEST = 255  # bytes of a name, on the file systems in use
_ESCAPED = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def written(path: str | Path) -> str:
    r"""A path for reports and databases, in UTF-8 whatever its bytes; `read_back` gives it back.

    On Linux and macOS a byte that is no UTF-8 is `\xe9`, and a backslash is two.
    """
    if os.name == "nt":
        return valid(str(path))
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def read_back(text: str) -> str:
    """The path that `written` wrote."""
    if os.name == "nt":
        return text
    return os.fsdecode(_ESCAPED.sub(_byte, text.encode("utf-8")))


def link(file: Path, folder: Path) -> str:
    """The address of a file for a page in a folder: relative, so that both may move together."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))
    except ValueError:  # on another drive
        return file.resolve().as_uri()


def valid(text: str) -> str:
    """A text that UTF-8 holds, for people: what it does not hold is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fitting(name: str, most: int = LONGEST) -> str:
    """A name of at most `most` bytes: a longer one is cut before its suffix, and a digest added."""
    raw = os.fsencode(name)
    if len(raw) <= most:
        return name
    suffix = os.fsencode(Path(name).suffix)[:16]
    end = f"-{hashlib.sha256(raw).hexdigest()[:12]}".encode() + suffix
    return os.fsdecode(raw[: most - len(end)]).encode("utf-8", "ignore").decode() + os.fsdecode(end)


def _byte(found: re.Match[bytes]) -> bytes:
    text = found[1]
    return text if text == b"\\" else bytes([int(text[1:], 16)])

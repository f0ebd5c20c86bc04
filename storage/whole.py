"""One way to write a file: beside its place, down to the disk, and then into it."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..options.errors import PackError
from .faults import worded
from .names import LONGEST, fitting

if TYPE_CHECKING:
    from PIL.Image import Image

PART = r"\.[^.]+\.[0-9a-f]{32}\.part"  # after `hidden`: the folder that a file is made in


class NameTooLong(PackError, OSError):
    """A name that no disk takes."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file in a hidden folder beside `path`, which takes its place when the block ends well.

    Whatever goes wrong, what stood at `path` is unchanged and nothing is left beside it, and an
    OSError names a file and a way out; what a killed process leaves is of `hidden(path)` and PART.
    Several processes may write the same file at once; the last one's is there then. Folders are
    made. A new file has the mode that umask asks for, whatever the library that writes it does; one
    that is replaced keeps its mode.
    """
    path = Path(path)
    check_name(path)
    folder = path.with_name(f"{hidden(path)}{path.suffix}.{uuid.uuid4().hex}.part")
    part = folder / path.name
    try:
        folder.mkdir(parents=True)
        mode = _mode(path if path.exists() else part)
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        if stat.S_IMODE(part.stat().st_mode) != mode:
            part.chmod(mode)
        part.replace(path)
    except OSError as error:
        inside = str(error.filename or folder).startswith(str(folder))  # a full disk names no file
        raise worded(error, path if inside else error.filename) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture of Pillow as its name says, whole or not at all."""
    with whole(path) as part:
        picture.save(part)


def hidden(path: Path) -> str:
    """How hidden names start beside a file, while it or another of its stem is made."""
    return f".{fitting(path.stem, 150)}"


def check_name(path: Path) -> None:
    """Raise NameTooLong for a name that no disk takes."""
    size = len(os.fsencode(path.name))
    if size > LONGEST:
        raise NameTooLong(
            f"{path}: the name is {size} bytes long, and a disk takes at most {LONGEST}; choose a"
            " shorter one."
        )


def _mode(file: Path) -> int:
    """The mode of a file that is there, or that a new one gets: umask's, or its folder's."""
    new = not file.exists()
    if new:
        file.touch()
    mode = stat.S_IMODE(file.stat().st_mode) & 0o777
    if new:
        file.unlink()
    return mode

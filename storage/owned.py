"""One run at a time writes to a name, and sweeps up what one that was killed left of it."""

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..options.errors import PackError
from .faults import told
from .whole import PART, check_name, hidden

WAIT = 0.5  # seconds: an owner that ends takes its lock's file along, and then it is tried again
_held: set[tuple[int, Path]] = set()


class InUse(PackError, RuntimeError):
    """Another run writes to this name now."""


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """A block in which nobody else owns this name, in any process, whatever its suffix.

    A file of the operating system's lock says so: it is free again when its process ends, however
    that ends. The hidden files that a killed owner was making are removed first. A thread may own
    a name it owns. Folders are made. Raises InUse, and OSError for a folder that takes no file.
    """
    path = Path(path).absolute()
    check_name(path)
    lock = path.with_name(f"{hidden(path)}.lock")
    mine = threading.get_ident(), lock
    if mine in _held:
        yield
        return
    with _locked(lock, path):
        _held.add(mine)
        try:
            _sweep(path)
            yield
        finally:
            _held.discard(mine)


@contextmanager
def _locked(file: Path, path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(file))
        lock.acquire(timeout=WAIT)
    except Timeout as error:
        raise InUse(
            f"{path}: another run is writing to this name. Wait for it to end, or choose another"
            f" name. (Its lock is {file.name}.)"
        ) from error
    except OSError as error:
        why = told(error).partition(";")[0]
        raise OSError(
            f"{path}: no file can be written in its folder ({why}). Choose another folder."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file: an empty one stays
            file.unlink()
        lock.release()


def _sweep(path: Path) -> None:
    """Remove what is half made of this name; while it is owned, nobody is making it."""
    leftover = re.compile(re.escape(hidden(path)) + PART)
    for each in path.parent.iterdir():
        if leftover.fullmatch(each.name):
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)

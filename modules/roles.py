"""What files say they are, read from their headers alone: for lists of hundreds of them."""

import functools
from pathlib import Path

from .errors import ModuleFileError
from .files import ROLES
from .tensors import header, metadata

KEY = b'"msl.role"'  # spelled otherwise, the seal is not right (seal.header_is_plain)


def role_of(path: Path) -> str | None:
    """The known role that a file states, kept until its size or its time of change differs.

    None for one that states no known role, and for one that can't be read. Nothing is verified.
    """
    try:
        stat = path.stat()
    except OSError:
        return None
    return _role(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 16)
def _role(path: Path, _size: int, _mtime_ns: int) -> str | None:
    try:
        if KEY not in header(path):
            return None  # a search takes a fifth of the time of parsing what is most often there
        role = metadata(path, path.name).get("msl.role")
    except (ModuleFileError, OSError):
        return None
    return role if role in ROLES else None

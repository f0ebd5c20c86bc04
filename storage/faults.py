"""What the operating system says of a file, in words, with the way out and without its number."""

import errno

_PLACE = "choose another place"
_TOLD = {
    errno.EACCES: f"this user may not; allow it, or {_PLACE}",
    errno.EDQUOT: f"this user's share of the disk is full; make room, or {_PLACE}",
    errno.EEXIST: "something of this name is there; choose another name",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ENOENT: "there is no such file or folder; check its name",
    errno.ENOSPC: f"the disk is full; make room, or {_PLACE}",
    errno.ENOTDIR: "a file has the name of one of its folders; choose another folder",
    errno.EROFS: f"the disk can't be written; {_PLACE}",
}
_TOLD[errno.EPERM] = _TOLD[errno.EACCES]


def told(error: Exception) -> str:
    """An error in words; one of the operating system with what to do."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return str(error)
    return _TOLD.get(number) or error.strerror or str(error)  # type: ignore[attr-defined]


def worded(error: OSError, path: object) -> OSError:
    """The same kind of error about a file, in these words; one that is in words stays."""
    return error if error.errno is None else type(error)(f"{path}: {told(error)}.")
